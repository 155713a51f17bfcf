// ShareflowTruncateOpened, ShareflowMultiplyBit, ShareflowTruncateMultiplyBit, ShareflowShift: one pass.
//
// With A = z + 2^62 - a opened, P = (A >> f) - 2^(64-f) A63 - 2^(62-f), q = -2^(64-f) (1 - A63), v = a63:
//   z >> f = P + (a >> f) + q v.
// With x = alpha + a and d = m ^ lambda: x d = alpha m + m a + (1 - 2m)(alpha lambda + a lambda).
// Shifts are logical. The leader of the two parties adds the terms that are public.

#include "isa.h"
#include "op.h"
#include "parallel.h"

namespace shareflow {
namespace {

constexpr int64_t kGrain = 1 << 15;  // elements for a thread
constexpr int64_t kAlign = 1 << 10;

int shift_of(const Attributes& attributes) {
  const int64_t shift = attributes.integer("shift");
  require(shift >= 0 && shift <= 62, "truncation is by 0 to 62 bits, not ", shift);
  return static_cast<int>(shift);
}

void require_same(const Input& a, const Input& b) {
  require(a.shape == b.shape, "an elementwise kernel takes tensors of one shape, not ", to_string(a.shape),
          " and ", to_string(b.shape));
}

void require_packed(const Input& m, int64_t count) {
  require(m.shape == Shape{plane_words(count)}, count, " bits are packed in [", plane_words(count),
          "] words, not ", to_string(m.shape));
}

class TruncateOpened {
 public:
  static constexpr const char* kName = "ShareflowTruncateOpened";
  static constexpr const char* kInputs[] = {"opened: int64", "t: int64", "v: int64"};
  static constexpr const char* kAttributes[] = {"shift: int", "leader: bool"};
  static void shape(ShapeInference& s) { s.output_like(0); }
  explicit TruncateOpened(const Attributes& attributes)
      : shift_(shift_of(attributes)), leader_(attributes.boolean("leader")) {}

  void compute(Context& context) const {
    const Input opened = context.input(0), t = context.input(1), v = context.input(2);
    require_same(opened, t);
    require_same(opened, v);
    Word* out = context.output(opened.shape);
    parallel_ranges(opened.count, kGrain, kAlign, [&](int64_t begin, int64_t end) {
      kernels().truncate_opened(opened.data, t.data, v.data, begin, end, shift_, leader_, out);
    });
  }

 private:
  int shift_;
  bool leader_;
};

class MultiplyBit {
 public:
  static constexpr const char* kName = "ShareflowMultiplyBit";
  static constexpr const char* kInputs[] = {"alpha: int64", "a: int64", "m: int64", "l: int64", "al: int64"};
  static constexpr const char* kAttributes[] = {"leader: bool"};
  static void shape(ShapeInference& s) {
    s.rank(2, 1);
    s.output_like(0);
  }
  explicit MultiplyBit(const Attributes& attributes) : leader_(attributes.boolean("leader")) {}

  void compute(Context& context) const {
    const Input alpha = context.input(0), a = context.input(1), m = context.input(2), l = context.input(3),
                al = context.input(4);
    for (const Input* other : {&a, &l, &al}) require_same(alpha, *other);
    require_packed(m, alpha.count);
    Word* out = context.output(alpha.shape);
    parallel_ranges(alpha.count, kGrain, kAlign, [&](int64_t begin, int64_t end) {
      kernels().multiply_bit(alpha.data, a.data, m.data, l.data, al.data, begin, end, leader_, out);
    });
  }

 private:
  bool leader_;
};

class TruncateMultiplyBit {
 public:
  static constexpr const char* kName = "ShareflowTruncateMultiplyBit";
  static constexpr const char* kInputs[] = {"opened: int64", "m: int64",  "t: int64", "v: int64",
                                            "l: int64",      "tl: int64", "vl: int64"};
  static constexpr const char* kAttributes[] = {"shift: int", "leader: bool"};
  static void shape(ShapeInference& s) {
    s.rank(1, 1);
    s.output_like(0);
  }
  explicit TruncateMultiplyBit(const Attributes& attributes)
      : shift_(shift_of(attributes)), leader_(attributes.boolean("leader")) {}

  void compute(Context& context) const {
    const Input opened = context.input(0), m = context.input(1), t = context.input(2), v = context.input(3),
                l = context.input(4), tl = context.input(5), vl = context.input(6);
    for (const Input* other : {&t, &v, &l, &tl, &vl}) require_same(opened, *other);
    require_packed(m, opened.count);
    Word* out = context.output(opened.shape);
    parallel_ranges(opened.count, kGrain, kAlign, [&](int64_t begin, int64_t end) {
      kernels().truncate_multiply_bit(opened.data, m.data, t.data, v.data, l.data, tl.data, vl.data, begin,
                                      end, shift_, leader_, out);
    });
  }

 private:
  int shift_;
  bool leader_;
};

class Shift {
 public:
  static constexpr const char* kName = "ShareflowShift";
  static constexpr const char* kInputs[] = {"x: int64"};
  static constexpr const char* kAttributes[] = {"amount: int", "left: bool"};
  static void shape(ShapeInference& s) { s.output_like(0); }
  explicit Shift(const Attributes& attributes)
      : amount_(static_cast<int>(attributes.integer("amount"))), left_(attributes.boolean("left")) {
    require(amount_ >= 0 && amount_ <= 63, "a shift is by 0 to 63 bits, not ", amount_);
  }

  void compute(Context& context) const {
    const Input x = context.input(0);
    Word* out = context.output(x.shape);
    parallel_ranges(x.count, kGrain, kAlign, [&](int64_t begin, int64_t end) {
      (left_ ? kernels().shift_left : kernels().shift_right)(x.data, begin, end, amount_, out);
    });
  }

 private:
  int amount_;
  bool left_;
};

const Registration<TruncateOpened> truncate_opened;
const Registration<MultiplyBit> multiply_bit;
const Registration<TruncateMultiplyBit> truncate_multiply_bit;
const Registration<Shift> shift;

}  // namespace
}  // namespace shareflow
