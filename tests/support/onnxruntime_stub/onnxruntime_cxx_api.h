// Declarations of the part of onnxruntime's C++ interface that docs/guide/deploy.md uses, from its documentation.
// For `g++ -fsyntax-only` where the real header is not there; nothing is defined.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#define ORTCHAR_T char
#define ORT_TSTR(text) text

enum OrtLoggingLevel { ORT_LOGGING_LEVEL_VERBOSE, ORT_LOGGING_LEVEL_INFO, ORT_LOGGING_LEVEL_WARNING };
enum OrtAllocatorType { OrtInvalidAllocator = -1, OrtDeviceAllocator = 0, OrtArenaAllocator = 1 };
enum OrtMemType { OrtMemTypeCPU = -1, OrtMemTypeDefault = 0 };
struct OrtAllocator;
struct OrtMemoryInfo;
struct OrtRunOptions;

namespace Ort {

struct Env {
  Env(OrtLoggingLevel level, const char* name);
  Env(const Env&) = delete;
};

struct SessionOptions {
  SessionOptions();
  SessionOptions(SessionOptions&&) = default;
  SessionOptions& SetIntraOpNumThreads(int threads);
};

struct RunOptions {
  explicit RunOptions(std::nullptr_t);
};

struct AllocatorWithDefaultOptions {
  AllocatorWithDefaultOptions();
  operator OrtAllocator*();
};

struct MemoryInfo {
  static MemoryInfo CreateCpu(OrtAllocatorType type, OrtMemType memory);
  operator const OrtMemoryInfo*() const;
};

struct TensorTypeAndShapeInfo {
  std::vector<int64_t> GetShape() const;
  size_t GetElementCount() const;
};

struct TypeInfo {
  TensorTypeAndShapeInfo GetTensorTypeAndShapeInfo() const;
};

struct Value {
  Value(Value&&) = default;
  Value& operator=(Value&&) = default;
  template <typename T>
  static Value CreateTensor(const OrtMemoryInfo* memory, T* data, size_t size, const int64_t* shape, size_t rank);
  template <typename T>
  static Value CreateTensor(OrtAllocator* allocator, const int64_t* shape, size_t rank);
  template <typename T>
  T* GetTensorMutableData();
  template <typename T>
  const T* GetTensorData() const;
  TensorTypeAndShapeInfo GetTensorTypeAndShapeInfo() const;
};

using AllocatedStringPtr = std::unique_ptr<char, void (*)(char*)>;

struct Session {
  Session(const Env& env, const ORTCHAR_T* path, const SessionOptions& options);
  size_t GetInputCount() const;
  size_t GetOutputCount() const;
  AllocatedStringPtr GetInputNameAllocated(size_t index, OrtAllocator* allocator) const;
  AllocatedStringPtr GetOutputNameAllocated(size_t index, OrtAllocator* allocator) const;
  TypeInfo GetInputTypeInfo(size_t index) const;
  std::vector<Value> Run(const RunOptions& options, const char* const* input_names, const Value* inputs,
                         size_t input_count, const char* const* output_names, size_t output_count);
};

}  // namespace Ort
