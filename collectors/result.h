// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <cerrno>
#include <cstring>
#include <optional>
#include <string>
#include <utility>
#include <variant>

namespace boxo {

/// What went wrong and what the user can do about it. `message` names the cause, `hint` the mend (may be empty);
/// `code` is the errno behind it, or 0.
struct Error {
  std::string message;
  std::string hint{};
  int code = 0;

  /// "message: hint", the one line a user reads.
  std::string text() const { return hint.empty() ? message : message + ": " + hint; }
};

/// An Error from errno: "WHAT: Permission denied".
inline Error errno_error(std::string what, std::string hint = {}, int code = errno) {
  return Error{std::move(what) + ": " + std::strerror(code), std::move(hint), code};
}

/// A value or an Error. The one way in which anything here fails; must be looked at.
///   auto file = Fd::open(path);
///   if (!file) return file.error();
///   use(*file);
template <class T = void>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::move(value)) {}      // NOLINT(google-explicit-constructor): `return value;`
  Result(Error error) : state_(std::move(error)) {}  // NOLINT(google-explicit-constructor): `return error;`

  explicit operator bool() const { return state_.index() == 0; }
  T& operator*() & { return std::get<0>(state_); }
  const T& operator*() const& { return std::get<0>(state_); }
  T&& operator*() && { return std::get<0>(std::move(state_)); }
  T* operator->() { return &std::get<0>(state_); }
  const T* operator->() const { return &std::get<0>(state_); }
  const Error& error() const { return std::get<1>(state_); }

 private:
  std::variant<T, Error> state_;
};

template <>
class [[nodiscard]] Result<void> {
 public:
  Result() = default;
  Result(Error error) : error_(std::move(error)) {}  // NOLINT(google-explicit-constructor): `return error;`

  explicit operator bool() const { return !error_.has_value(); }
  const Error& error() const { return *error_; }

 private:
  std::optional<Error> error_;
};

}  // namespace boxo
