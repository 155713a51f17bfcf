// The instruction set in use: chosen once by what CPU and operating system support, or forced.

#pragma once

#include "table.h"

namespace shareflow {

// The kernels of the instruction set in use.
const Table& kernels();

// The engine of large matrix products, and the one for products that are too shallow for it.
const Engine& deep_engine();
const Engine& shallow_engine();

}  // namespace shareflow
