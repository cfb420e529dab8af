// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <string>
#include <utility>

namespace boxo::test {

/// A directory tree as a value in the test, such as a fake /proc or /sys/fs/cgroup: path and content, where a
/// path that ends in "/" is an empty directory and content that begins with "->" makes a symbolic link.
/// Removed at the end.
class Tree {
 public:
  Tree(std::initializer_list<std::pair<std::string, std::string>> entries = {}) {
    std::string name = std::filesystem::temp_directory_path() / "boxo-tree-XXXXXX";
    if (::mkdtemp(name.data()) == nullptr) std::abort();
    root_ = name;
    for (const auto& [path, content] : entries) put(path, content);
  }
  ~Tree() {
    std::error_code ignored;
    std::filesystem::remove_all(root_, ignored);
  }
  Tree(const Tree&) = delete;
  Tree& operator=(const Tree&) = delete;

  void put(const std::string& path, const std::string& content = {}) {
    const std::filesystem::path full = root_ / path;
    if (path.ends_with('/')) {
      std::filesystem::create_directories(full);
      return;
    }
    std::filesystem::create_directories(full.parent_path());
    std::filesystem::remove(full);
    if (content.starts_with("->"))
      std::filesystem::create_symlink(content.substr(2), full);
    else
      std::ofstream(full, std::ios::binary) << content;
  }
  void remove(const std::string& path) { std::filesystem::remove_all(root_ / path); }
  std::string path(const std::string& below = {}) const { return below.empty() ? root_ : root_ / below; }

 private:
  std::filesystem::path root_;
};

}  // namespace boxo::test
