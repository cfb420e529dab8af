// SPDX-License-Identifier: MIT OR Apache-2.0
#include "agent/pages.h"

#include "agent/version.h"
#include "collectors/events/line.h"

namespace boxo {

namespace {

HttpResponse text(int status, std::string body) {
  return {.status = status, .body = std::make_shared<const std::string>(std::move(body))};
}

std::string escaped(std::string_view from) {
  std::string to;
  // The name of a process may hold any byte.
  for (const char c : events::label_value(from)) {
    if (c == '<') to += "&lt;";
    else if (c == '>') to += "&gt;";
    else if (c == '&') to += "&amp;";
    else to += c;
  }
  return to;
}

std::string row(std::string_view what, std::string_view detail) {
  return "<tr><td>" + escaped(what) + "</td><td>" + escaped(detail) + "</td></tr>\n";
}

std::string table(const char* title, const std::string& rows) {
  return rows.empty() ? rows : std::string("<h2>") + title + "</h2>\n<table>\n" + rows + "</table>\n";
}

/// boxo_agent_probe_info has a probe and a reason on each sample.
std::string probe_rows(const Publication& publication) {
  std::string rows;
  for (const Family* family : publication.families)
    if (family->metric->name == "boxo_agent_probe_info")
      for (const Sample& sample : family->samples)
        if (sample.labels.size() == 2) rows += row(sample.labels[0].value, sample.labels[1].value);
  return rows;
}

/// What a person wants to see first: is the target there, what works, and what is missing for which reason.
std::string front_page(const Publication* publication) {
  std::string body = "<p>no collection is complete yet</p>\n";
  if (publication != nullptr) {
    std::string collectors, missing;
    for (const CollectorStatus& status : publication->statuses)
      collectors += row(status.name, status.success ? "works" : "fails: " + status.error);
    for (const Absence& absence : publication->absences) missing += row(absence.metric, absence.reason);
    body = "<p>target: " + escaped(publication->target) + "</p>\n" + table("Collectors", collectors) +
           table("Probes", probe_rows(*publication)) + table("Not exported", missing);
  }
  return std::string("<!doctype html>\n<html lang=\"en\"><head><title>boxo-agent</title></head><body>\n"
                     "<h1>boxo-agent ") + kVersion + "</h1>\n"
         "<p><a href=\"/metrics\">metrics</a> · <a href=\"/-/healthy\">healthy</a> · <a href=\"/-/ready\">ready</a></p>\n" +
         body + "</body></html>\n";
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
