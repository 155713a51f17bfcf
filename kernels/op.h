// A thin C++ layer over TensorFlow's C API: one class template registers an op and its CPU kernel.
//
// Only C functions of TensorFlow are called, so the library does not depend on TensorFlow's C++ ABI. All
// tensors are int64 and are handled as uint64_t, whose overflow is defined.

#pragma once

#include <cstddef>
#include <cstdint>
#include <sstream>
#include <string>
#include <vector>

#include "tensorflow/c/kernels.h"
#include "tensorflow/c/ops.h"
#include "tensorflow/c/tf_status.h"
#include "tensorflow/c/tf_tensor.h"

namespace shareflow {

using Word = uint64_t;
using Shape = std::vector<int64_t>;

// An error in the arguments of an op: thrown by kernels, reported as INVALID_ARGUMENT.
struct InvalidArgument {
  std::string text;
};

std::string to_string(const Shape& shape);
inline std::string to_string(int64_t value) { return std::to_string(value); }

// Throw InvalidArgument, with the parts joined, unless the condition holds.
template <class... Parts>
void require(bool condition, const Parts&... parts) {
  if (condition) return;
  std::ostringstream text;
  (text << ... << parts);
  throw InvalidArgument{text.str()};
}

int64_t element_count(const Shape& shape);

// Words that hold one bit of each of `count` values.
inline int64_t plane_words(int64_t count) { return (count + 63) / 64; }

// The attributes of a node, read when its kernel is made.
class Attributes {
 public:
  explicit Attributes(TF_OpKernelConstruction* construction) : construction_(construction) {}
  int64_t integer(const char* name) const;
  bool boolean(const char* name) const;
  std::vector<int64_t> integers(const char* name) const;

 private:
  TF_OpKernelConstruction* construction_;
};

// An input tensor; it lives as long as the Context that gave it.
struct Input {
  const Word* data;
  Shape shape;
  int64_t count;
};

// One run of a kernel: its inputs and outputs.
class Context {
 public:
  explicit Context(TF_OpKernelContext* context) : context_(context) {}
  ~Context();
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;
  Input input(int index);
  Word* output(const Shape& shape);

 private:
  TF_OpKernelContext* context_;
  std::vector<TF_Tensor*> held_;
};

// What a shape function may know: ranks and dimensions of inputs (the C API does not show it the attributes,
// so dimensions that follow from them are set in Python, where the op is called).
class ShapeInference {
 public:
  static constexpr int64_t kUnknown = -1;
  ShapeInference(TF_ShapeInferenceContext* context, TF_Status* status) : context_(context), status_(status) {}
  void rank(int input, int64_t rank);
  void rank_at_least(int input, int64_t rank);
  int64_t dimension(int input, int index);
  void output(const Shape& dimensions);
  void output_like(int input);
  void output_unknown();

 private:
  bool failed() const { return TF_GetCode(status_) != TF_OK; }
  TF_ShapeInferenceContext* context_;
  TF_Status* status_;
};

void report(TF_OpKernelConstruction* construction, const std::string& text);
void report(TF_OpKernelContext* context, const std::string& text);

// Registers Kernel as an op: Kernel::kName, kInputs, kAttributes (specifications as in REGISTER_OP),
// Kernel::shape(ShapeInference&), a constructor from Attributes and compute(Context&).
template <class Kernel>
class Registration {
 public:
  Registration() {
    TF_Status* status = TF_NewStatus();
    TF_OpDefinitionBuilder* op = TF_NewOpDefinitionBuilder(Kernel::kName);
    for (const char* input : Kernel::kInputs) TF_OpDefinitionBuilderAddInput(op, input);
    TF_OpDefinitionBuilderAddOutput(op, "result: int64");
    for (const char* attribute : Kernel::kAttributes) TF_OpDefinitionBuilderAddAttr(op, attribute);
    TF_OpDefinitionBuilderSetShapeInferenceFunction(op, &infer);
    TF_RegisterOpDefinition(op, status);
    if (TF_GetCode(status) == TF_OK) {
      TF_KernelBuilder* kernel = TF_NewKernelBuilder(Kernel::kName, "CPU", &create, &compute, &destroy);
      TF_RegisterKernelBuilder(Kernel::kName, kernel, status);
    }
    TF_DeleteStatus(status);
  }

 private:
  static void infer(TF_ShapeInferenceContext* context, TF_Status* status) {
    ShapeInference inference(context, status);
    Kernel::shape(inference);
  }
  static void* create(TF_OpKernelConstruction* construction) {
    try {
      return new Kernel(Attributes(construction));
    } catch (const InvalidArgument& error) {
      report(construction, error.text);
      return nullptr;
    }
  }
  static void compute(void* kernel, TF_OpKernelContext* context) {
    try {
      Context run(context);
      static_cast<const Kernel*>(kernel)->compute(run);
    } catch (const InvalidArgument& error) {
      report(context, error.text);
    } catch (const std::bad_alloc&) {
      report(context, "out of memory");
    }
  }
  static void destroy(void* kernel) { delete static_cast<Kernel*>(kernel); }
};

}  // namespace shareflow
