// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "collectors/result.h"

namespace boxo {

struct HttpResponse {
  int status = 200;
  std::string content_type = "text/plain; charset=utf-8";
  std::shared_ptr<const std::string> body;  ///< shared, so that a page is not copied for every scrape
};

/// A small HTTP/1.1 server: GET and HEAD on fixed paths. Handlers run in the server's threads, several at once.
class HttpServer {
 public:
  using Handler = std::function<HttpResponse()>;

  /// Listens on `address` ("127.0.0.1:9559", "[::1]:9559", ":9559" for every IPv4 address; port 0 picks a free one) and
  /// serves `pages` by exact path; everything else is 404. EINVAL: `address` is none.
  static Result<std::unique_ptr<HttpServer>> listen(const std::string& address, std::map<std::string, Handler> pages);
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;
  HttpServer(HttpServer&&) = delete;
  HttpServer& operator=(HttpServer&&) = delete;

  /// "http://127.0.0.1:9559", with the port that was picked.
  const std::string& url() const;

 private:
  struct Impl;
  explicit HttpServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace boxo
