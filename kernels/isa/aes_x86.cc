// AES-128 in counter mode with the CPU's AES instructions: of four blocks (VAES) or of one (AES-NI).

#include <immintrin.h>

#include "functions.h"

namespace shareflow {
namespace SHAREFLOW_ISA {
namespace {

template <int kConstant>
inline __m128i next_key(__m128i key) {
  const __m128i turned = _mm_shuffle_epi32(_mm_aeskeygenassist_si128(key, kConstant), 0xFF);
  key = _mm_xor_si128(key, _mm_slli_si128(key, 4));
  key = _mm_xor_si128(key, _mm_slli_si128(key, 8));
  return _mm_xor_si128(key, turned);
}

inline void expand(const Word key[2], __m128i keys[11]) {
  keys[0] = _mm_set_epi64x(key[1], key[0]);
  keys[1] = next_key<0x01>(keys[0]);
  keys[2] = next_key<0x02>(keys[1]);
  keys[3] = next_key<0x04>(keys[2]);
  keys[4] = next_key<0x08>(keys[3]);
  keys[5] = next_key<0x10>(keys[4]);
  keys[6] = next_key<0x20>(keys[5]);
  keys[7] = next_key<0x40>(keys[6]);
  keys[8] = next_key<0x80>(keys[7]);
  keys[9] = next_key<0x1B>(keys[8]);
  keys[10] = next_key<0x36>(keys[9]);
}

#ifdef __VAES__
using Blocks = __m512i;
constexpr int kBlocks = 4;
inline Blocks spread(__m128i x) { return _mm512_broadcast_i32x4(x); }
inline Blocks counters(Word high, Word low) {
  return _mm512_set_epi64(high, low + 3, high, low + 2, high, low + 1, high, low);
}
inline Blocks add(Blocks a, Blocks b) { return _mm512_add_epi64(a, b); }
inline Blocks mix(Blocks a, Blocks b) { return _mm512_xor_si512(a, b); }
inline Blocks round(Blocks x, Blocks key) { return _mm512_aesenc_epi128(x, key); }
inline Blocks last_round(Blocks x, Blocks key) { return _mm512_aesenclast_epi128(x, key); }
inline void put(Word* out, Blocks x) { _mm512_storeu_si512(out, x); }
#else
using Blocks = __m128i;
constexpr int kBlocks = 1;
inline Blocks spread(__m128i x) { return x; }
inline Blocks counters(Word high, Word low) { return _mm_set_epi64x(high, low); }
inline Blocks add(Blocks a, Blocks b) { return _mm_add_epi64(a, b); }
inline Blocks mix(Blocks a, Blocks b) { return _mm_xor_si128(a, b); }
inline Blocks round(Blocks x, Blocks key) { return _mm_aesenc_si128(x, key); }
inline Blocks last_round(Blocks x, Blocks key) { return _mm_aesenclast_si128(x, key); }
inline void put(Word* out, Blocks x) { _mm_storeu_si128(reinterpret_cast<__m128i*>(out), x); }
#endif

// Blocks in flight: they hide the latency of a round.
constexpr int kWide = 8;

}  // namespace

void uniform(const Word key[2], Word execution, Word stream, Word block, Word* out, int64_t count) {
  __m128i narrow[11];
  expand(key, narrow);
  Blocks keys[11];
  for (int r = 0; r < 11; ++r) keys[r] = spread(narrow[r]);
  // The low word never overflows into the high one: stream < 2^31 and block < 2^32.
  Blocks counter = counters(execution, (stream << 32) | block);
  const Blocks step = spread(_mm_set_epi64x(0, kBlocks));
  constexpr int kWords = 2 * kBlocks;
  Blocks state[kWide];
  for (; count > 0; count -= kWide * kWords, out += kWide * kWords) {
    for (int i = 0; i < kWide; ++i) {
      state[i] = mix(counter, keys[0]);
      counter = add(counter, step);
    }
    for (int r = 1; r < 10; ++r)
      for (int i = 0; i < kWide; ++i) state[i] = round(state[i], keys[r]);
    for (int i = 0; i < kWide; ++i) state[i] = last_round(state[i], keys[10]);
    if (count >= kWide * kWords) {
      for (int i = 0; i < kWide; ++i) put(out + i * kWords, state[i]);
    } else {
      __builtin_memcpy(out, state, count * sizeof(Word));
    }
  }
}

}  // namespace SHAREFLOW_ISA
}  // namespace shareflow
