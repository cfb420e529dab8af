// SPDX-License-Identifier: MIT OR Apache-2.0
#include "agent/exporter.h"

#include <prometheus/client_metric.h>
#include <prometheus/collectable.h>
#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <limits>
#include <mutex>
#include <string_view>

#include "collectors/events/line.h"

namespace boxo {

namespace {

prometheus::MetricType type_of(MetricType type) {
  switch (type) {
    case MetricType::kCounter: return prometheus::MetricType::Counter;
    case MetricType::kGauge: return prometheus::MetricType::Gauge;
    case MetricType::kHistogram: return prometheus::MetricType::Histogram;
  }
  return prometheus::MetricType::Untyped;
}

/// TextSerializer writes help texts as they are, and the format wants these two escaped. Names of custom metrics reach here.
std::string escaped_help(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '\\') out += "\\\\";
    else if (c == '\n') out += "\\n";
    else out += c;
  }
  return out;
}

/// One byte that is no UTF-8, out of a path or of the command line, and Prometheus refuses the whole page.
std::string as_utf8(const std::string& text) {
  const bool ascii = std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; });
  return ascii ? text : events::label_value(text);
}

void add_labels(prometheus::ClientMetric& metric, const Labels& labels) {
  for (const Label& label : labels) {
    const bool there = std::any_of(metric.label.begin(), metric.label.end(),
                                   [&](const auto& other) { return other.name == label.name; });
    if (!there) metric.label.push_back({label.name, as_utf8(label.value)});
  }
}

prometheus::ClientMetric::Histogram histogram_of(const Histogram& from) {
  prometheus::ClientMetric::Histogram to;
  to.bucket.reserve(from.counts.size());
  for (std::size_t i = 0; i < from.counts.size(); ++i) {
    to.sample_count += from.counts[i];
    const double bound = i < from.bounds.size() ? from.bounds[i] : std::numeric_limits<double>::infinity();
    to.bucket.push_back({to.sample_count, bound});
  }
  to.sample_sum = from.sum;
  return to;
}

/// A publication as prometheus-cpp's data model. Pure: same publication, same families. (A prometheus::Registry would
/// not do: its counters cannot be set to an absolute value, and it never forgets a series.)
class Translation : public prometheus::Collectable {
 public:
  Translation(std::shared_ptr<const Publication> publication, const Labels& constant)
      : publication_(std::move(publication)), constant_(constant) {}

  std::vector<prometheus::MetricFamily> Collect() const override {
    std::vector<prometheus::MetricFamily> families;
    families.reserve(publication_->families.size());
    for (const Family* family : publication_->families) families.push_back(translate(*family));
    return families;
  }

 private:
  prometheus::MetricFamily translate(const Family& from) const {
    prometheus::MetricFamily to;
    to.name = from.metric->name;
    to.help = escaped_help(from.metric->help);
    to.type = type_of(from.metric->type);
    to.metric.reserve(from.samples.size());
    for (const Sample& sample : from.samples) {
      prometheus::ClientMetric metric;
      add_labels(metric, sample.labels);
      add_labels(metric, constant_);
      if (const auto* histogram = std::get_if<Histogram>(&sample.value))
        metric.histogram = histogram_of(*histogram);
      else if (from.metric->type == MetricType::kCounter)
        metric.counter.value = std::get<double>(sample.value);
      else
        metric.gauge.value = std::get<double>(sample.value);
      to.metric.push_back(std::move(metric));
    }
    return to;
  }

  std::shared_ptr<const Publication> publication_;
  const Labels& constant_;
};

}  // namespace

struct Exporter::Impl {
  const PerformanceMonitor& monitor;
  Labels constant;
  std::mutex mutex{};
  std::shared_ptr<const Publication> written{};
  std::shared_ptr<const std::string> page = std::make_shared<const std::string>();
};

Exporter::Exporter(const PerformanceMonitor& monitor, Labels constant)
    : impl_(new Impl{.monitor = monitor, .constant = std::move(constant)}) {}
Exporter::~Exporter() = default;

std::shared_ptr<const std::string> Exporter::page() const {
  auto latest = impl_->monitor.latest();
  const std::lock_guard lock(impl_->mutex);
  if (latest && latest != impl_->written) {
    const auto families = Translation(latest, impl_->constant).Collect();
    impl_->page = std::make_shared<const std::string>(prometheus::TextSerializer().Serialize(families));
    impl_->written = std::move(latest);
  }
  return impl_->page;
}

}  // namespace boxo
