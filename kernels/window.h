// The geometry of a convolution, as the ops of this library have it: padding given in zeros, not by name.

#pragma once

#include "op.h"

namespace shareflow {

struct Axis {
  int64_t size, window, stride, before, after, dilation, out;
  // Where tap `tap` of output `position` lies in the image; outside [0, size) it is padding.
  int64_t at(int64_t position, int64_t tap) const { return position * stride - before + tap * dilation; }
};

// The attributes strides [2], padding [top, bottom, left, right] and dilations [2].
class Window {
 public:
  static constexpr const char* kStrides = "strides: list(int) = [1, 1]";
  static constexpr const char* kPadding = "padding: list(int) = [0, 0, 0, 0]";
  static constexpr const char* kDilations = "dilations: list(int) = [1, 1]";

  explicit Window(const Attributes& attributes)
      : strides_(attributes.integers("strides")),
        padding_(attributes.integers("padding")),
        dilations_(attributes.integers("dilations")) {
    require(strides_.size() == 2 && strides_[0] >= 1 && strides_[1] >= 1,
            "strides must be two numbers of at least 1, not ", to_string(strides_));
    require(dilations_.size() == 2 && dilations_[0] >= 1 && dilations_[1] >= 1,
            "dilations must be two numbers of at least 1, not ", to_string(dilations_));
    require(padding_.size() == 4, "padding must be four numbers, not ", to_string(padding_));
    for (int64_t pad : padding_) require(pad >= 0, "padding must not be negative, not ", to_string(padding_));
  }

  // The vertical axis (0) or the horizontal one (1).
  Axis axis(const Shape& image, const Shape& filter, int index) const {
    Axis axis{image[1 + index],
              filter[index],
              strides_[index],
              padding_[2 * index],
              padding_[2 * index + 1],
              dilations_[index],
              0};
    require(axis.window >= 1, "a filter window must hold at least one element, not shape ",
            to_string(filter));
    const int64_t span = (axis.window - 1) * axis.dilation + 1;
    axis.out = axis.size + axis.before + axis.after - span + axis.stride;
    require(axis.out >= 0, "the window of ", to_string(filter), " is larger than the padded image ",
            to_string(image), " with padding ", to_string(padding_));
    axis.out /= axis.stride;
    return axis;
  }

 private:
  Shape strides_, padding_, dilations_;
};

}  // namespace shareflow
