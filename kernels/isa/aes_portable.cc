// AES-128 in counter mode without AES instructions: bit-sliced, so without tables and in constant time.
//
// A tile is kTile * 64 blocks. Plane (i, j) holds bit j of byte i of each block: byte i = row + 4 * column.

#include "functions.h"
#include "transpose.h"

namespace shareflow {
namespace SHAREFLOW_ISA {
namespace {

// The S-box in 113 gates: J. Boyar, R. Peralta, "A depth-16 circuit for the AES S-box", 2011; their letters.
template <class T>
inline void substitute(T* q) {
  const T x0 = q[7], x1 = q[6], x2 = q[5], x3 = q[4], x4 = q[3], x5 = q[2], x6 = q[1], x7 = q[0];
  const T y14 = x3 ^ x5, y13 = x0 ^ x6, y9 = x0 ^ x3, y8 = x0 ^ x5, t0 = x1 ^ x2, y1 = t0 ^ x7, y4 = y1 ^ x3;
  const T y12 = y13 ^ y14, y2 = y1 ^ x0, y5 = y1 ^ x6, y3 = y5 ^ y8, t1 = x4 ^ y12, y15 = t1 ^ x5,
          y20 = t1 ^ x1;
  const T y6 = y15 ^ x7, y10 = y15 ^ t0, y11 = y20 ^ y9, y7 = x7 ^ y11, y17 = y10 ^ y11, y19 = y10 ^ y8;
  const T y16 = t0 ^ y11, y21 = y13 ^ y16, y18 = x0 ^ y16;

  const T t2 = y12 & y15, t4 = (y3 & y6) ^ t2, t6 = (y4 & x7) ^ t2, t7 = y13 & y16, t9 = (y5 & y1) ^ t7;
  const T t11 = (y2 & y7) ^ t7, t12 = y9 & y11, t14 = (y14 & y17) ^ t12, t16 = (y8 & y10) ^ t12;
  const T t21 = t4 ^ t14 ^ y20, t22 = t6 ^ t16 ^ y19, t23 = t9 ^ t14 ^ y21, t24 = t11 ^ t16 ^ y18;
  const T t25 = t21 ^ t22, t26 = t21 & t23, t27 = t24 ^ t26, t29 = (t25 & t27) ^ t22, t30 = t23 ^ t24;
  const T t33 = ((t22 ^ t26) & t30) ^ t24, t34 = t23 ^ t33, t35 = t27 ^ t33, t36 = t24 & t35, t37 = t36 ^ t34;
  const T t40 = t25 ^ (t29 & (t27 ^ t36)), t41 = t40 ^ t37, t42 = t29 ^ t33, t43 = t29 ^ t40, t44 = t33 ^ t37;
  const T t45 = t42 ^ t41;
  const T z0 = t44 & y15, z1 = t37 & y6, z2 = t33 & x7, z3 = t43 & y16, z4 = t40 & y1, z5 = t29 & y7;
  const T z6 = t42 & y11, z7 = t45 & y17, z8 = t41 & y10, z9 = t44 & y12, z10 = t37 & y3, z11 = t33 & y4;
  const T z12 = t43 & y13, z13 = t40 & y5, z14 = t29 & y2, z15 = t42 & y9, z16 = t45 & y14, z17 = t41 & y8;

  const T t46 = z15 ^ z16, t48 = z5 ^ z13, t53 = z0 ^ z3, t54 = z6 ^ z7, t57 = z2 ^ z12 ^ t53, t58 = z4 ^ t46;
  const T t59 = z3 ^ t54, t60 = t46 ^ t57, t61 = z14 ^ t57, t62 = z7 ^ z8 ^ t58, t63 = z9 ^ z10 ^ t58;
  const T t64 = z4 ^ t59, t65 = t61 ^ t62, t66 = z1 ^ t63, s3 = t53 ^ t66;
  q[7] = t59 ^ t63;
  q[6] = ~(t64 ^ s3);
  q[5] = ~(z16 ^ z17 ^ t64 ^ t65);
  q[4] = s3;
  q[3] = z2 ^ z5 ^ t66;
  q[2] = z10 ^ z11 ^ t65;
  q[1] = ~(z12 ^ t48 ^ t62);
  q[0] = ~(t48 ^ t60);
}

using State = Vector[16][8];

void expand(const Word key[2], unsigned char keys[11][16]) {
  std::memcpy(keys[0], key, 16);
  unsigned constant = 1;
  for (int r = 1; r < 11; ++r) {
    const unsigned char* before = keys[r - 1];
    Word planes[8] = {};  // the four bytes of the last column, turned by one
    for (int i = 0; i < 4; ++i)
      for (int j = 0; j < 8; ++j) planes[j] |= Word(before[12 + (i + 1) % 4] >> j & 1) << i;
    substitute(planes);
    for (int i = 0; i < 16; ++i) {
      unsigned byte = i < 4 ? 0 : keys[r][i - 4];
      for (int j = 0; i < 4 && j < 8; ++j) byte |= (planes[j] >> i & 1) << j;
      keys[r][i] = static_cast<unsigned char>(before[i] ^ byte ^ (i == 0 ? constant : 0));
    }
    constant = constant << 1 ^ (constant & 0x80 ? 0x11B : 0);
  }
}

void add_key(State& state, const unsigned char* key) {
  for (int i = 0; i < 16; ++i)
    for (int j = 0; j < 8; ++j) state[i][j] ^= fill<Vector>(Word{0} - (key[i] >> j & 1));
}

void shift_rows(State& state) {
  State from;
  std::memcpy(from, state, sizeof from);
  for (int i = 0; i < 16; ++i) std::memcpy(state[i], from[(i + 4 * (i % 4)) % 16], sizeof state[i]);
}

void mix_columns(State& state) {
  for (int column = 0; column < 16; column += 4) {
    Vector from[4][8];
    std::memcpy(from, state[column], sizeof from);
    for (int i = 0; i < 4; ++i) {
      const Vector *a = from[i], *b = from[(i + 1) % 4], *c = from[(i + 2) % 4], *d = from[(i + 3) % 4];
      const Vector top = a[7] ^ b[7];  // doubling in GF(2^8): shift, and reduce by 0x1B
      for (int j = 0; j < 8; ++j) {
        Vector twice = j ? a[j - 1] ^ b[j - 1] : Vector{};
        if (0x1B >> j & 1) twice ^= top;
        state[column + i][j] = twice ^ b[j] ^ c[j] ^ d[j];
      }
    }
  }
}

}  // namespace

void uniform(const Word key[2], Word execution, Word stream, Word block, Word* out, int64_t count) {
  unsigned char keys[11][16];
  expand(key, keys);
  constexpr int kBlocks = 64 * kTile;
  for (; count > 0; count -= 2 * kBlocks, out += 2 * kBlocks, block += kBlocks) {
    State state;
    // Lane q holds the blocks from block + 64 q on: counter bits below 2^6 follow a pattern.
    const Vector low = fill<Vector>(stream << 32 | block) + Lanes<Vector>::index() * 64;
    for (int bit = 0; bit < 128; ++bit) {
      Vector& plane = state[bit / 8][bit % 8];
      if (bit < 6) {
        plane = fill<Vector>(~(~Word{0} / ((Word{1} << (1 << bit)) + 1)));
      } else {
        plane = Vector{} - ((bit < 64 ? low >> bit : fill<Vector>(execution >> (bit - 64))) & 1);
      }
    }
    add_key(state, keys[0]);
    for (int r = 1; r < 11; ++r) {
      for (int i = 0; i < 16; ++i) substitute(state[i]);
      shift_rows(state);
      if (r < 10) mix_columns(state);
      add_key(state, keys[r]);
    }
    Word halves[2][kBlocks];
    planes_to_values(state[0], halves[0]);
    planes_to_values(state[8], halves[1]);
    const int64_t written = least(count, 2 * kBlocks);
    for (int64_t i = 0; i < written; ++i) out[i] = halves[i % 2][i / 2];
  }
}

}  // namespace SHAREFLOW_ISA
}  // namespace shareflow
