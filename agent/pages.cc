// SPDX-License-Identifier: MIT OR Apache-2.0
#include "agent/pages.h"

#include "agent/version.h"

namespace boxo {

namespace {

HttpResponse text(int status, std::string body) {
  return {.status = status, .body = std::make_shared<const std::string>(std::move(body))};
}

std::string escaped(std::string_view from) {
  std::string to;
  for (const char c : from) {
    if (c == '<') to += "&lt;";
    else if (c == '>') to += "&gt;";
    else if (c == '&') to += "&amp;";
    else to += c;
  }
  return to;
}

/// What a person wants to see first: is the target there, and do the collectors work.
std::string front_page(const Publication* publication) {
  std::string rows;
  const auto row = [&](const Family& family) {
    for (const Sample& sample : family.samples) {
      const auto* value = std::get_if<double>(&sample.value);
      if (value == nullptr) continue;
      std::string name(family.metric->name);
      for (const Label& label : sample.labels) name += " " + label.name + "=" + label.value;
      rows += "<tr><td>" + escaped(name) + "</td><td>" + (*value == 1 ? "yes" : "no") + "</td></tr>\n";
    }
  };
  if (publication != nullptr) {
    for (const Family* family : publication->families) {
      const auto name = family->metric->name;
      if (name == "boxo_agent_target_up" || name == "boxo_agent_collector_success" || name == "boxo_agent_probe_up")
        row(*family);
    }
  }
  return std::string("<!doctype html>\n<html lang=\"en\"><head><title>boxo-agent</title></head><body>\n"
                     "<h1>boxo-agent ") + kVersion + "</h1>\n"
         "<p><a href=\"/metrics\">metrics</a> · <a href=\"/-/healthy\">healthy</a> · <a href=\"/-/ready\">ready</a></p>\n"
         "<table>\n" + rows + "</table>\n</body></html>\n";
}

}  // namespace

std::map<std::string, HttpServer::Handler> pages(const PerformanceMonitor& monitor, const Exporter& exporter) {
  return {
      {"/metrics",
       [&exporter] {
         return HttpResponse{.content_type = Exporter::kContentType, .body = exporter.page()};
       }},
      {"/-/healthy", [] { return text(200, "healthy\n"); }},
      {"/-/ready",
       [&monitor] {
         return monitor.latest() ? text(200, "ready\n") : text(503, "no collection is complete yet\n");
       }},
      {"/",
       [&monitor] {
         const auto latest = monitor.latest();
         auto page = text(200, front_page(latest.get()));
         page.content_type = "text/html; charset=utf-8";
         return page;
       }},
  };
}

}  // namespace boxo
