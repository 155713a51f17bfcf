// ShareflowConv2d: convolution mod 2^64 of x [N, H, W, C] with w [kh, kw, C / groups, O].
//
// A matrix product whose left rows are the windows of the image. They are staged a few rows at a time as the
// product goes, so the matrix of all windows is never made.

#include <algorithm>
#include <cstring>
#include <deque>

#include "gemm.h"
#include "op.h"
#include "window.h"

namespace shareflow {
namespace {

// The windows of channels [first, first + channels) of an image, one row for each output pixel; element
// (i * kw + j) * channels + c of a row is channel first + c under tap (i, j).
class WindowRows : public Rows {
 public:
  WindowRows(const Input& x, const Axis& down, const Axis& across, int64_t first, int64_t channels)
      : x_(x.data + first),
        pitch_(x.shape[3]),
        channels_(channels),
        down_(down),
        across_(across),
        joined_(across.dilation == 1 && channels == x.shape[3]) {}

  void stage(int64_t row, int rows, int64_t k0, int64_t k, Word* out, int64_t pitch) const override {
    const int64_t in_line = across_.window * channels_;
    Place first{k0 / in_line, 0, k0 % in_line};
    if (!joined_) {
      first.tap = first.offset / channels_;
      first.offset %= channels_;
    }
    int64_t x = row % across_.out, line = row / across_.out, y = line % down_.out;
    const int64_t image_words = down_.size * across_.size * pitch_;
    const Word* image = x_ + line / down_.out * image_words;
    for (int r = 0; r < rows;
         ++r, out += pitch) {  // divisions would cost more than the copies: count instead
      stage_window(image, y, x, first, k, out);
      if (++x < across_.out) continue;
      x = 0;
      if (++y < down_.out) continue;
      y = 0;
      image += image_words;
    }
  }

 private:
  // An element of a window: the offset is from this tap's first channel.
  struct Place {
    int64_t line, tap, offset;
  };

  // k elements of the window of output (y, x) of one image.
  void stage_window(const Word* image, int64_t y, int64_t x, Place place, int64_t k, Word* out) const {
    // Taps in a line that follow each other in memory are copied at once.
    const int64_t run = joined_ ? across_.window * channels_ : channels_, runs = joined_ ? 1 : across_.window;
    while (k > 0) {
      const int64_t size = std::min(run - place.offset, k);
      const int64_t at_y = down_.at(y, place.line), at_x = across_.at(x, place.tap);
      copy(image + (at_y * across_.size + at_x) * pitch_, at_y >= 0 && at_y < down_.size, at_x, run,
           place.offset, size, out);
      out += size;
      k -= size;
      place.offset = 0;
      if (++place.tap < runs) continue;
      place.tap = 0;
      ++place.line;
    }
  }

  // Elements [offset, offset + size) of a run that begins at pixel at_x; what lies outside the image is zero.
  void copy(const Word* from, bool inside, int64_t at_x, int64_t run, int64_t offset, int64_t size,
            Word* out) const {
    int64_t begin = 0, end = 0;  // the part of the run that lies inside
    if (inside) {
      begin = std::max<int64_t>(0, -at_x) * channels_;
      end = std::min(run, (across_.size - at_x) * channels_);
    }
    begin = std::clamp<int64_t>(begin - offset, 0, size);
    end = std::clamp<int64_t>(end - offset, begin, size);
    if (begin > 0) std::fill(out, out + begin, 0);
    if (end > begin) copy_words(out + begin, from + offset + begin, end - begin);
    if (size > end) std::fill(out + end, out + size, 0);
  }

  static void copy_words(Word* to, const Word* from, int64_t count) {
    if (count > 16) {
      std::memcpy(to, from, count * sizeof(Word));
    } else {
      for (int64_t i = 0; i < count; ++i) to[i] = from[i];
    }
  }

  const Word* x_;
  int64_t pitch_, channels_;
  Axis down_, across_;
  bool joined_;
};

class Conv2d {
 public:
  static constexpr const char* kName = "ShareflowConv2d";
  static constexpr const char* kInputs[] = {"x: int64", "w: int64"};
  static constexpr const char* kAttributes[] = {Window::kStrides, Window::kPadding, Window::kDilations,
                                                "groups: int = 1"};

  static void shape(ShapeInference& s) {
    s.rank(0, 4);
    s.rank(1, 4);
    s.output({s.dimension(0, 0), ShapeInference::kUnknown, ShapeInference::kUnknown, s.dimension(1, 3)});
  }

  explicit Conv2d(const Attributes& attributes) : window_(attributes), groups_(attributes.integer("groups")) {
    require(groups_ >= 1, "groups must be at least 1, not ", groups_);
  }

  void compute(Context& context) const {
    const Input x = context.input(0), w = context.input(1);
    require(x.shape.size() == 4 && w.shape.size() == 4,
            "a convolution takes an image and a filter of rank 4, not ", to_string(x.shape), " and ",
            to_string(w.shape));
    require(x.shape[3] == w.shape[2] * groups_ && w.shape[3] % groups_ == 0,
            "conv2d takes C = groups * w.shape[2] and O a multiple of groups, not C = ", x.shape[3],
            ", w.shape = ", to_string(w.shape), ", groups = ", groups_);
    const Axis down = window_.axis(x.shape, w.shape, 0), across = window_.axis(x.shape, w.shape, 1);
    const int64_t channels = w.shape[2], outputs = w.shape[3], share = outputs / groups_;
    Word* z = context.output({x.shape[0], down.out, across.out, outputs});
    std::deque<WindowRows> rows;
    std::vector<Product> products;
    for (int64_t g = 0; g < groups_; ++g) {
      rows.emplace_back(x, down, across, g * channels, channels);
      products.push_back({&rows.back(), Matrix{w.data + g * share, outputs, 1}, z + g * share});
    }
    multiply(products, x.shape[0] * down.out * across.out, down.window * across.window * channels, share,
             outputs);
  }

 private:
  Window window_;
  int64_t groups_;
};

const Registration<Conv2d> registration;

}  // namespace
}  // namespace shareflow
