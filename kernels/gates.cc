// ShareflowGateProducts and ShareflowGate: the later steps of a comparison by masked evaluation.
//
// A gate of this radix joins neighbours: G' = XOR_k G_k & AND_{j>k} P_j and P' = AND_j P_j. Its inputs are v
// = m ^ l, m public and l shared; it needs the products of l that isa/gates.cc lists. The last gate of a
// comparison gives G' alone.

#include <algorithm>

#include "isa.h"
#include "op.h"
#include "parallel.h"

namespace shareflow {
namespace {

constexpr int64_t kAlign = 64;

class Gates {
 public:
  explicit Gates(const Attributes& attributes)
      : radix_(static_cast<int>(attributes.integer("radix"))), last_(attributes.boolean("last")) {
    require(radix_ >= 2 && radix_ <= 8, "a gate has radix 2 to 8, not ", radix_);
  }

 protected:
  // k, the number of gates fed by a tensor [2, radix * k, W].
  int64_t gates(const Shape& shape) const {
    require(shape.size() == 3 && shape[0] == 2 && shape[1] % radix_ == 0, "a gate of radix ", radix_,
            " takes a tensor [2, ", radix_, " * k, W], not ", to_string(shape));
    return shape[1] / radix_;
  }

  // body(gate, begin, end) for all gates and words.
  template <class Body>
  void run(int64_t gates, int64_t width, const Body& body) const {
    const int64_t step = gate_product_count(radix_, last_);
    if (gates * width * step < 1 << 17) {
      for (int64_t t = 0; t < gates; ++t) body(t, 0, width);
      return;
    }
    const int64_t chunk = std::max<int64_t>(kAlign, (1 << 16) / step / kAlign * kAlign);
    const int64_t chunks = (width + chunk - 1) / chunk;
    parallel(gates * chunks, [&](int64_t task) {
      const int64_t begin = task % chunks * chunk;
      body(task / chunks, begin, std::min(width, begin + chunk));
    });
  }

  int radix_;
  bool last_;
};

class GateProducts : Gates {
 public:
  static constexpr const char* kName = "ShareflowGateProducts";
  static constexpr const char* kInputs[] = {"l: int64"};
  static constexpr const char* kAttributes[] = {"radix: int", "last: bool"};
  static void shape(ShapeInference& s) {
    s.rank(0, 3);
    s.output({ShapeInference::kUnknown, ShapeInference::kUnknown, s.dimension(0, 2)});
  }
  explicit GateProducts(const Attributes& attributes) : Gates(attributes) {}

  void compute(Context& context) const {
    const Input l = context.input(0);
    const int64_t k = gates(l.shape), width = l.shape[2];
    Word* products = context.output({gate_product_count(radix_, last_), k, width});
    run(k, width, [&](int64_t t, int64_t begin, int64_t end) {
      kernels().gate_products(l.data, k, t, begin, end, width, radix_, last_, products);
    });
  }
};

class Gate : Gates {
 public:
  static constexpr const char* kName = "ShareflowGate";
  static constexpr const char* kInputs[] = {"m: int64", "l: int64", "products: int64"};
  static constexpr const char* kAttributes[] = {"radix: int", "last: bool", "leader: bool"};
  static void shape(ShapeInference& s) {
    for (int input = 0; input < 3; ++input) s.rank(input, 3);
    s.output({ShapeInference::kUnknown, s.dimension(2, 1), s.dimension(0, 2)});
  }
  explicit Gate(const Attributes& attributes) : Gates(attributes), leader_(attributes.boolean("leader")) {}

  void compute(Context& context) const {
    const Input m = context.input(0), l = context.input(1), products = context.input(2);
    const int64_t k = gates(m.shape), width = m.shape[2];
    require(l.shape == m.shape, "shares of gate masks must have the shape of the values, ",
            to_string(m.shape), ", not ", to_string(l.shape));
    const Shape expected{gate_product_count(radix_, last_), k, width};
    require(products.shape == expected, "the shared products must have shape ", to_string(expected), ", not ",
            to_string(products.shape));
    Word* out = context.output({last_ ? 1 : 2, k, width});
    run(k, width, [&](int64_t t, int64_t begin, int64_t end) {
      kernels().gate(m.data, l.data, products.data, k, t, begin, end, width, radix_, last_, leader_, out);
    });
  }

 private:
  bool leader_;
};

const Registration<GateProducts> gate_products;
const Registration<Gate> gate;

}  // namespace
}  // namespace shareflow
