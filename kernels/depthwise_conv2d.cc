// ShareflowDepthwiseConv2d: each channel of x [N, H, W, C] with its filters w [kh, kw, C, M]; output channel
// c M + m.

#include <algorithm>

#include "gemm.h"
#include "isa.h"
#include "op.h"
#include "parallel.h"
#include "window.h"

namespace shareflow {
namespace {

class DepthwiseConv2d {
 public:
  static constexpr const char* kName = "ShareflowDepthwiseConv2d";
  static constexpr const char* kInputs[] = {"x: int64", "w: int64"};
  static constexpr const char* kAttributes[] = {Window::kStrides, Window::kPadding, Window::kDilations};

  static void shape(ShapeInference& s) {
    s.rank(0, 4);
    s.rank(1, 4);
    const int64_t channels = s.dimension(1, 2), multiplier = s.dimension(1, 3);
    const bool known = channels >= 0 && multiplier >= 0;
    s.output({s.dimension(0, 0), ShapeInference::kUnknown, ShapeInference::kUnknown,
              known ? channels * multiplier : ShapeInference::kUnknown});
  }

  explicit DepthwiseConv2d(const Attributes& attributes) : window_(attributes) {}

  void compute(Context& context) const {
    const Input x = context.input(0), w = context.input(1);
    require(x.shape.size() == 4 && w.shape.size() == 4,
            "a convolution takes an image and a filter of rank 4, not ", to_string(x.shape), " and ",
            to_string(w.shape));
    require(x.shape[3] == w.shape[2],
            "depthwise_conv2d takes w.shape[2] = C, not w.shape = ", to_string(w.shape),
            " and C = ", x.shape[3]);
    const Axis down = window_.axis(x.shape, w.shape, 0), across = window_.axis(x.shape, w.shape, 1);
    const int64_t channels = w.shape[2], multiplier = w.shape[3], outputs = channels * multiplier;
    Word* z = context.output({x.shape[0], down.out, across.out, outputs});
    const int64_t lines = x.shape[0] * down.out,
                  line_work = across.out * down.window * across.window * outputs;
    if (lines * across.out * outputs == 0) return;

    parallel_ranges(lines, std::max<int64_t>(1, kWorkForThread / std::max<int64_t>(1, line_work)), 1,
                    [&](int64_t begin, int64_t end) {
                      std::vector<const Word*> at_x(down.window * across.window), at_w(at_x.size());
                      for (int64_t line = begin; line < end; ++line)
                        for (int64_t column = 0; column < across.out; ++column) {
                          int taps = 0;  // those that lie inside the image
                          for (int64_t i = 0; i < down.window; ++i) {
                            const int64_t y = down.at(line % down.out, i);
                            if (y < 0 || y >= down.size) continue;
                            for (int64_t j = 0; j < across.window; ++j) {
                              const int64_t at = across.at(column, j);
                              if (at < 0 || at >= across.size) continue;
                              at_x[taps] =
                                  x.data + ((line / down.out * down.size + y) * across.size + at) * channels;
                              at_w[taps++] = w.data + (i * across.window + j) * outputs;
                            }
                          }
                          kernels().depthwise(at_x.data(), at_w.data(), taps, channels, multiplier,
                                              z + (line * across.out + column) * outputs);
                        }
                    });
  }

 private:
  Window window_;
};

const Registration<DepthwiseConv2d> registration;

}  // namespace
}  // namespace shareflow
