#include "op.h"

#include <new>

namespace shareflow {
namespace {

// A status that throws when an operation on it failed.
class Status {
 public:
  Status() : status_(TF_NewStatus()) {}
  ~Status() { TF_DeleteStatus(status_); }
  operator TF_Status*() { return status_; }
  void check() const {
    if (TF_GetCode(status_) != TF_OK) throw InvalidArgument{TF_Message(status_)};
  }

 private:
  TF_Status* status_;
};

}  // namespace

std::string to_string(const Shape& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

int64_t element_count(const Shape& shape) {
  int64_t count = 1;
  for (int64_t size : shape) {
    require(size >= 0, "a shape has no negative dimension: ", to_string(shape));
    require(!__builtin_mul_overflow(count, size, &count),
            "a shape with too many elements: ", to_string(shape));
  }
  require(count <= INT64_MAX / 8, "a shape with too many elements: ", to_string(shape));
  return count;
}

int64_t Attributes::integer(const char* name) const {
  Status status;
  int64_t value = 0;
  TF_OpKernelConstruction_GetAttrInt64(construction_, name, &value, status);
  status.check();
  return value;
}

bool Attributes::boolean(const char* name) const {
  Status status;
  TF_Bool value = 0;
  TF_OpKernelConstruction_GetAttrBool(construction_, name, &value, status);
  status.check();
  return value != 0;
}

std::vector<int64_t> Attributes::integers(const char* name) const {
  Status status;
  int32_t size = 0, total = 0;
  TF_OpKernelConstruction_GetAttrSize(construction_, name, &size, &total, status);
  status.check();
  std::vector<int64_t> values(size > 0 ? size : 0);
  if (values.empty()) return values;
  TF_OpKernelConstruction_GetAttrInt64List(construction_, name, values.data(), size, status);
  status.check();
  return values;
}

Context::~Context() {
  for (TF_Tensor* tensor : held_) TF_DeleteTensor(tensor);
}

Input Context::input(int index) {
  Status status;
  TF_Tensor* tensor = nullptr;
  TF_GetInput(context_, index, &tensor, status);
  status.check();
  held_.push_back(tensor);
  Input input{static_cast<const Word*>(TF_TensorData(tensor)), Shape(TF_NumDims(tensor)), 0};
  for (size_t i = 0; i < input.shape.size(); ++i) input.shape[i] = TF_Dim(tensor, static_cast<int>(i));
  input.count = TF_TensorElementCount(tensor);
  return input;
}

Word* Context::output(const Shape& shape) {
  Status status;
  const size_t bytes = static_cast<size_t>(element_count(shape)) * sizeof(Word);
  TF_Tensor* tensor =
      TF_AllocateOutput(context_, 0, TF_INT64, shape.data(), static_cast<int>(shape.size()), bytes, status);
  if (tensor != nullptr) held_.push_back(tensor);
  status.check();
  return static_cast<Word*>(TF_TensorData(tensor));
}

void ShapeInference::rank(int input, int64_t rank) {
  if (failed()) return;
  TF_ShapeHandle* shape = TF_NewShapeHandle();
  TF_ShapeInferenceContextGetInput(context_, input, shape, status_);
  if (!failed()) TF_ShapeInferenceContextWithRank(context_, shape, rank, shape, status_);
  TF_DeleteShapeHandle(shape);
}

void ShapeInference::rank_at_least(int input, int64_t rank) {
  if (failed()) return;
  TF_ShapeHandle* shape = TF_NewShapeHandle();
  TF_ShapeInferenceContextGetInput(context_, input, shape, status_);
  if (!failed()) TF_ShapeInferenceContextWithRankAtLeast(context_, shape, rank, shape, status_);
  TF_DeleteShapeHandle(shape);
}

int64_t ShapeInference::dimension(int input, int index) {
  if (failed()) return kUnknown;
  int64_t value = kUnknown;
  TF_ShapeHandle* shape = TF_NewShapeHandle();
  TF_ShapeInferenceContextGetInput(context_, input, shape, status_);
  if (!failed() && TF_ShapeInferenceContextRankKnown(context_, shape) &&
      index < TF_ShapeInferenceContextRank(context_, shape)) {
    TF_DimensionHandle* dimension = TF_NewDimensionHandle();
    TF_ShapeInferenceContextDim(context_, shape, index, dimension);
    if (TF_DimensionHandleValueKnown(dimension)) value = TF_DimensionHandleValue(dimension);
    TF_DeleteDimensionHandle(dimension);
  }
  TF_DeleteShapeHandle(shape);
  return value;
}

void ShapeInference::output(const Shape& dimensions) {
  if (failed()) return;
  TF_ShapeHandle* shape = TF_ShapeInferenceContextScalar(context_);
  for (int64_t dimension : dimensions) {  // the C API makes vectors, and joins shapes
    TF_ShapeHandle* part = TF_ShapeInferenceContextVectorFromSize(context_, static_cast<size_t>(dimension));
    if (!failed()) TF_ShapeInferenceContextConcatenateShapes(context_, shape, part, shape, status_);
    TF_DeleteShapeHandle(part);
  }
  if (!failed()) TF_ShapeInferenceContextSetOutput(context_, 0, shape, status_);
  TF_DeleteShapeHandle(shape);
}

void ShapeInference::output_like(int input) {
  if (failed()) return;
  TF_ShapeHandle* shape = TF_NewShapeHandle();
  TF_ShapeInferenceContextGetInput(context_, input, shape, status_);
  if (!failed()) TF_ShapeInferenceContextSetOutput(context_, 0, shape, status_);
  TF_DeleteShapeHandle(shape);
}

void ShapeInference::output_unknown() {
  if (!failed()) TF_ShapeInferenceContextSetUnknownShape(context_, status_);
}

void report(TF_OpKernelConstruction* construction, const std::string& text) {
  TF_Status* status = TF_NewStatus();
  TF_SetStatus(status, TF_INVALID_ARGUMENT, text.c_str());
  TF_OpKernelConstruction_Failure(construction, status);
  TF_DeleteStatus(status);
}

void report(TF_OpKernelContext* context, const std::string& text) {
  TF_Status* status = TF_NewStatus();
  TF_SetStatus(status, TF_INVALID_ARGUMENT, text.c_str());
  TF_OpKernelContext_Failure(context, status);
  TF_DeleteStatus(status);
}

}  // namespace shareflow
