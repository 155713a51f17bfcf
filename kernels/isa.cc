#include "isa.h"

#include <atomic>
#include <cstring>
#include <initializer_list>

#ifdef SHAREFLOW_X86
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace shareflow {
namespace {

struct Level {
  const char* name;
  const Table* table;
  const Engine* deep;
  bool (*supported)();
  bool only_for_tests;
};

bool always() { return true; }

#ifdef SHAREFLOW_X86

struct Registers {
  unsigned eax, ebx, ecx, edx;
};

Registers cpuid(unsigned leaf, unsigned part) {
  Registers r{0, 0, 0, 0};
  __get_cpuid_count(leaf, part, &r.eax, &r.ebx, &r.ecx, &r.edx);
  return r;
}

// Whether the operating system saves the register state of these XCR0 bits.
bool system_saves(unsigned bits) {
  if (!(cpuid(1, 0).ecx >> 27 & 1)) return false;  // OSXSAVE
  unsigned low, high;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (low & bits) == bits;
}

bool all(unsigned flags, std::initializer_list<int> bits) {
  for (int bit : bits)
    if (!(flags >> bit & 1)) return false;
  return true;
}

// AVX2 and AES-NI: Haswell, Zen and later.
bool has_avx2() {
  return all(cpuid(1, 0).ecx, {25, 28}) && all(cpuid(7, 0).ebx, {5, 8}) && system_saves(0x6);
}

// AVX-512 F, DQ, BW, VL, VBMI and VAES: Ice Lake, Zen 4 and later. Older AVX-512 CPUs use the AVX2 kernels.
bool has_avx512() {
  return has_avx2() && all(cpuid(7, 0).ebx, {16, 17, 30, 31}) && all(cpuid(7, 0).ecx, {1, 9}) &&
         system_saves(0xE6);
}

#endif
#ifdef SHAREFLOW_AMX

// AMX-TILE and AMX-INT8, with the kernel's permission for the tile state (Linux 5.16).
bool has_amx() {
  constexpr int kRequestPermission = 0x1023, kTileData = 18;
  static const bool supported = has_avx512() && all(cpuid(7, 0).edx, {24, 25}) && system_saves(0x60000) &&
                                syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  return supported;
}

#endif

// The best first.
const Level kLevels[] = {
#ifdef SHAREFLOW_AMX
    {"amx", &avx512::table, &amx::engine, &has_amx, false},
#endif
#ifdef SHAREFLOW_X86
    {"avx512", &avx512::table, nullptr, &has_avx512, false},
    {"avx2", &avx2::table, nullptr, &has_avx2, false},
#endif
    {"portable", &portable::table, nullptr, &always, false},
#ifdef SHAREFLOW_AMX
    {"amx-emulated", &avx512::table, &amx_emulated::engine, &has_avx512, true},
#endif
};

const Level* best() {
  for (const Level& level : kLevels)
    if (level.supported()) return &level;
  return nullptr;  // not reached: portable is always supported
}

std::atomic<const Level*>& current() {
  static std::atomic<const Level*> level{best()};
  return level;
}

}  // namespace

const Table& kernels() { return *current().load(std::memory_order_relaxed)->table; }

const Engine& shallow_engine() { return *kernels().engine; }

const Engine& deep_engine() {
  const Level* level = current().load(std::memory_order_relaxed);
  return level->deep ? *level->deep : *level->table->engine;
}

}  // namespace shareflow

// The functions that ring/kernels.py calls through ctypes.

#define SHAREFLOW_EXPORT extern "C" __attribute__((visibility("default")))

// The name of the i-th instruction set that this CPU supports, the best first; null after the last.
SHAREFLOW_EXPORT const char* shareflow_available(int index) {
  using namespace shareflow;
  for (const Level& level : kLevels)
    if (!level.only_for_tests && level.supported() && index-- == 0) return level.name;
  return nullptr;
}

SHAREFLOW_EXPORT const char* shareflow_instruction_set() { return shareflow::current().load()->name; }

// Uses this instruction set from now on, in the whole process; "auto" is the best. 0 if it is not supported.
SHAREFLOW_EXPORT int shareflow_use(const char* name) {
  using namespace shareflow;
  for (const Level& level : kLevels)
    if (std::strcmp(name, level.name) == 0 && level.supported()) {
      current().store(&level);
      return 1;
    }
  if (std::strcmp(name, "auto") != 0) return 0;
  current().store(best());
  return 1;
}
