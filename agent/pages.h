// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <map>
#include <string>

#include "agent/exporter.h"
#include "agent/http.h"
#include "agent/monitor.h"

namespace boxo {

/// The pages that the agent serves: /metrics, /-/healthy, /-/ready, and / for a person. Both arguments outlive the server.
std::map<std::string, HttpServer::Handler> pages(const PerformanceMonitor& monitor, const Exporter& exporter);

}  // namespace boxo
