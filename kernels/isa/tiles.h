// The tile registers that the AMX engine uses: eight, of 16 rows of 64 bytes. Either the CPU's, or, to test
// the engine on a CPU without them (SHAREFLOW_EMULATED_TILES), a software model of the same instructions.

#pragma once

#include <cstdint>
#include <cstring>

#ifndef SHAREFLOW_EMULATED_TILES
#include <immintrin.h>
#endif

namespace shareflow {
namespace SHAREFLOW_ISA {
namespace {

#ifndef SHAREFLOW_EMULATED_TILES

struct Tiles {
  // Configures the tiles of this thread, until the object goes.
  Tiles() {
    struct alignas(64) {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {};
      uint8_t rows[16] = {};
    } shape;
    for (int t = 0; t < 8; ++t) shape.row_bytes[t] = 64, shape.rows[t] = 16;
    _tile_loadconfig(&shape);
  }
  ~Tiles() { _tile_release(); }
};

// Macros, because the tile numbers must be literals.
#define SHAREFLOW_TILE_ZERO(t) _tile_zero(t)
#define SHAREFLOW_TILE_LOAD(t, from) _tile_loadd(t, from, 64)
#define SHAREFLOW_TILE_STORE(t, to) _tile_stored(t, to, 64)
// c[i][j] += sum over k of a[i][k] b[k / 4][4 j + k % 4], a and b of unsigned bytes, c of 32-bit words.
#define SHAREFLOW_TILE_MULTIPLY(c, a, b) _tile_dpbuud(c, a, b)

#else

thread_local uint8_t tile_registers[8][16][64];

struct Tiles {
  Tiles() { std::memset(tile_registers, 0, sizeof tile_registers); }
  ~Tiles() {}
};

inline void emulated_multiply(int c, int a, int b) {
  for (int i = 0; i < 16; ++i)
    for (int j = 0; j < 16; ++j) {
      uint32_t sum;
      std::memcpy(&sum, &tile_registers[c][i][4 * j], 4);
      for (int k = 0; k < 64; ++k)
        sum += uint32_t{tile_registers[a][i][k]} * tile_registers[b][k / 4][4 * j + k % 4];
      std::memcpy(&tile_registers[c][i][4 * j], &sum, 4);
    }
}

#define SHAREFLOW_TILE_ZERO(t) std::memset(tile_registers[t], 0, 1024)
#define SHAREFLOW_TILE_LOAD(t, from) std::memcpy(tile_registers[t], from, 1024)
#define SHAREFLOW_TILE_STORE(t, to) std::memcpy(to, tile_registers[t], 1024)
#define SHAREFLOW_TILE_MULTIPLY(c, a, b) emulated_multiply(c, a, b)

#endif

}  // namespace
}  // namespace SHAREFLOW_ISA
}  // namespace shareflow
