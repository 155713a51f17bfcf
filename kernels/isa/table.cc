#include "functions.h"

#define SHAREFLOW_TEXT_(x) #x
#define SHAREFLOW_TEXT(x) SHAREFLOW_TEXT_(x)

namespace shareflow {
namespace SHAREFLOW_ISA {

const Table table = {
    SHAREFLOW_TEXT(SHAREFLOW_ISA),
    &engine,
    &few_rows,
    &few_dots,
    &depthwise,
    &uniform,
    &bit_planes,
    &from_bit_planes,
    &pack_bits,
    &unpack_bits,
    &group_products,
    &group_polynomials,
    &gate_products,
    &gate,
    &truncate_opened,
    &multiply_bit,
    &truncate_multiply_bit,
    &shift_right,
    &shift_left,
};

}  // namespace SHAREFLOW_ISA
}  // namespace shareflow
