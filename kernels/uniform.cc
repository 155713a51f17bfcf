// ShareflowUniform: a stream of uniform words, AES-128 in counter mode.
//
// key [2]: the 16 bytes of two little-endian words. Block b encrypts the 128-bit little-endian integer with
// low word stream << 32 | b and high word execution; its two words are elements 2 b and 2 b + 1.

#include "isa.h"
#include "op.h"
#include "parallel.h"

namespace shareflow {
namespace {

class Uniform {
 public:
  static constexpr const char* kName = "ShareflowUniform";
  static constexpr const char* kInputs[] = {"key: int64", "execution: int64", "stream: int64"};
  static constexpr const char* kAttributes[] = {"shape: list(int)"};

  static void shape(ShapeInference& s) {
    s.rank(0, 1);
    s.rank(1, 0);
    s.rank(2, 0);
    s.output_unknown();
  }

  explicit Uniform(const Attributes& attributes) : shape_(attributes.integers("shape")) {
    require(element_count(shape_) <= int64_t{1} << 33, "a stream gives at most 2^33 elements, not shape ",
            to_string(shape_), ": use several streams");
  }

  void compute(Context& context) const {
    const Input key = context.input(0), execution = context.input(1), stream = context.input(2);
    require(key.shape == Shape{2}, "a key has shape [2], not ", to_string(key.shape));
    require(execution.shape.empty() && stream.shape.empty(),
            "execution and stream are scalars, not of shapes ", to_string(execution.shape), " and ",
            to_string(stream.shape));
    require(*stream.data < Word{1} << 31, "a stream id must be in [0, 2^31), not ",
            static_cast<int64_t>(*stream.data));
    Word* out = context.output(shape_);
    // Ranges begin at multiples of 1024 elements, as the kernels ask (512 blocks).
    parallel_ranges(element_count(shape_), 1 << 15, 1024, [&](int64_t begin, int64_t end) {
      kernels().uniform(key.data, *execution.data, *stream.data, begin / 2, out + begin, end - begin);
    });
  }

 private:
  Shape shape_;
};

const Registration<Uniform> registration;

}  // namespace
}  // namespace shareflow
