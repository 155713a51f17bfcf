// ShareflowGroupProducts and ShareflowGroupPolynomials: the first step of a comparison by masked evaluation.
//
// For x = alpha + a and each group of bits, g_i = alpha_i & a_i and p_i = alpha_i ^ a_i give G = XOR_i g_i &
// AND_{j>i} p_j (the group generates a carry) and P = AND_i p_i (it propagates one). Products [2^group - 1,
// groups, W]: entry s is the AND of the bits i of a with bit i set in s + 1. Positions from `bits` on
// propagate: alpha_i = 1, a_i = 0.

#include "isa.h"
#include "op.h"
#include "parallel.h"

namespace shareflow {
namespace {

constexpr int64_t kGrain = 1 << 7;  // words for a thread
constexpr int64_t kAlign = 128;
constexpr const char* kBits = "bits: int";
constexpr const char* kGroup = "group: int";
constexpr const char* kGroups = "groups: int";

Groups groups_of(const Attributes& attributes) {
  const int64_t bits = attributes.integer("bits"), group = attributes.integer("group"),
                groups = attributes.integer("groups");
  require(group >= 2 && group <= 6, "a group has 2 to 6 bits, not ", group);
  require(bits >= 1 && bits <= 63, "a carry is taken over 1 to 63 bits, not ", bits);
  require(groups >= 1 && groups <= 1 << 20 && groups * group >= bits, groups, " groups of ", group,
          " bits do not hold ", bits, " bits");
  return {static_cast<int>(bits), static_cast<int>(group), static_cast<int>(groups)};
}

class GroupProducts {
 public:
  static constexpr const char* kName = "ShareflowGroupProducts";
  static constexpr const char* kInputs[] = {"a: int64"};
  static constexpr const char* kAttributes[] = {kBits, kGroup, kGroups};
  static void shape(ShapeInference& s) {
    s.output({ShapeInference::kUnknown, ShapeInference::kUnknown, ShapeInference::kUnknown});
  }
  explicit GroupProducts(const Attributes& attributes) : groups_(groups_of(attributes)) {}

  void compute(Context& context) const {
    const Input a = context.input(0);
    const int64_t width = plane_words(a.count);
    Word* products = context.output({(int64_t{1} << groups_.group) - 1, groups_.groups, width});
    parallel_ranges(width, kGrain, kAlign, [&](int64_t begin, int64_t end) {
      kernels().group_products(a.data, a.count, begin, end, width, groups_, products);
    });
  }

 private:
  Groups groups_;
};

class GroupPolynomials {
 public:
  static constexpr const char* kName = "ShareflowGroupPolynomials";
  static constexpr const char* kInputs[] = {"alpha: int64", "products: int64"};
  static constexpr const char* kAttributes[] = {kBits, kGroup, kGroups, "leader: bool"};
  static void shape(ShapeInference& s) {
    s.rank(1, 3);
    s.output({2, s.dimension(1, 1), s.dimension(1, 2)});
  }
  explicit GroupPolynomials(const Attributes& attributes)
      : groups_(groups_of(attributes)), leader_(attributes.boolean("leader")) {}

  void compute(Context& context) const {
    const Input alpha = context.input(0), products = context.input(1);
    const int64_t width = plane_words(alpha.count);
    const Shape expected{(int64_t{1} << groups_.group) - 1, groups_.groups, width};
    require(products.shape == expected, "the shared products must have shape ", to_string(expected), ", not ",
            to_string(products.shape));
    Word* out = context.output({2, groups_.groups, width});
    parallel_ranges(width, kGrain, kAlign, [&](int64_t begin, int64_t end) {
      kernels().group_polynomials(alpha.data, alpha.count, begin, end, width, groups_, leader_, products.data,
                                  out);
    });
  }

 private:
  Groups groups_;
  bool leader_;
};

const Registration<GroupProducts> group_products;
const Registration<GroupPolynomials> group_polynomials;

}  // namespace
}  // namespace shareflow
