// ShareflowBitPlanes, ShareflowFromBitPlanes, ShareflowPackBits, ShareflowUnpackBits: bit-slicing.
//
// A plane of n values is W = ceil(n / 64) words; value j is bit j % 64 of word j / 64. Padding bits are zero
// after packing and are ignored on unpacking.

#include "isa.h"
#include "op.h"
#include "parallel.h"

namespace shareflow {
namespace {

constexpr int64_t kGrain = 1 << 9;  // words: 32 K values, for a thread
constexpr int64_t kAlign = 64;

class BitPlanes {
 public:
  static constexpr const char* kName = "ShareflowBitPlanes";
  static constexpr const char* kInputs[] = {"x: int64"};
  static constexpr std::initializer_list<const char*> kAttributes = {};
  static void shape(ShapeInference& s) { s.output({64, ShapeInference::kUnknown}); }
  explicit BitPlanes(const Attributes&) {}

  void compute(Context& context) const {
    const Input x = context.input(0);
    const int64_t width = plane_words(x.count);
    Word* planes = context.output({64, width});
    parallel_ranges(width, kGrain, kAlign, [&](int64_t begin, int64_t end) {
      kernels().bit_planes(x.data, x.count, begin, end, width, planes);
    });
  }
};

class FromBitPlanes {
 public:
  static constexpr const char* kName = "ShareflowFromBitPlanes";
  static constexpr const char* kInputs[] = {"planes: int64"};
  static constexpr const char* kAttributes[] = {"shape: list(int)"};
  static void shape(ShapeInference& s) {
    s.rank(0, 2);
    s.output_unknown();
  }
  explicit FromBitPlanes(const Attributes& attributes) : shape_(attributes.integers("shape")) {}

  void compute(Context& context) const {
    const Input planes = context.input(0);
    const int64_t count = element_count(shape_), width = plane_words(count);
    require(planes.shape == Shape({64, width}), count, " values have bit planes [64, ", width, "], not ",
            to_string(planes.shape));
    Word* x = context.output(shape_);
    parallel_ranges(width, kGrain, kAlign, [&](int64_t begin, int64_t end) {
      kernels().from_bit_planes(planes.data, width, begin, end, x, count);
    });
  }

 private:
  Shape shape_;
};

class PackBits {
 public:
  static constexpr const char* kName = "ShareflowPackBits";
  static constexpr const char* kInputs[] = {"x: int64"};
  static constexpr std::initializer_list<const char*> kAttributes = {};
  static void shape(ShapeInference& s) { s.output({ShapeInference::kUnknown}); }
  explicit PackBits(const Attributes&) {}

  void compute(Context& context) const {
    const Input x = context.input(0);
    Word* words = context.output({plane_words(x.count)});
    parallel_ranges(plane_words(x.count), kGrain, kAlign, [&](int64_t begin, int64_t end) {
      kernels().pack_bits(x.data, x.count, begin, end, words);
    });
  }
};

class UnpackBits {
 public:
  static constexpr const char* kName = "ShareflowUnpackBits";
  static constexpr const char* kInputs[] = {"words: int64"};
  static constexpr const char* kAttributes[] = {"shape: list(int)"};
  static void shape(ShapeInference& s) {
    s.rank(0, 1);
    s.output_unknown();
  }
  explicit UnpackBits(const Attributes& attributes) : shape_(attributes.integers("shape")) {}

  void compute(Context& context) const {
    const Input words = context.input(0);
    const int64_t count = element_count(shape_);
    require(words.shape == Shape{plane_words(count)}, count, " bits are packed in [", plane_words(count),
            "] words, not ", to_string(words.shape));
    Word* x = context.output(shape_);
    parallel_ranges(plane_words(count), kGrain, kAlign, [&](int64_t begin, int64_t end) {
      kernels().unpack_bits(words.data, begin, end, x, count);
    });
  }

 private:
  Shape shape_;
};

const Registration<BitPlanes> bit_planes;
const Registration<FromBitPlanes> from_bit_planes;
const Registration<PackBits> pack_bits;
const Registration<UnpackBits> unpack_bits;

}  // namespace
}  // namespace shareflow
