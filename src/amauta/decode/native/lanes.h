// Numbers side by side in a register: their types, their sums, and bf16.
#pragma once

#include <cstdint>
#include <cstring>

#ifdef __AVX512F__
#include <immintrin.h>
#endif

namespace {

constexpr int LANES = 16;   // of one sum; the processor's own width may be smaller
constexpr int SUMS = 2;     // that run side by side
constexpr int TILE = 8;     // tokens that are worked on at a time
constexpr int AHEAD = 4096; // bytes by which weights are called for before they are needed

typedef float Floats __attribute__((vector_size(LANES * 4)));
typedef uint32_t Words __attribute__((vector_size(LANES * 4)));
typedef uint16_t Halves __attribute__((vector_size(LANES * 2)));

struct Bf16 { uint16_t bits; };

inline float widen(float x) { return x; }
inline float widen(Bf16 x) {
    uint32_t word = uint32_t(x.bits) << 16;
    float out;
    std::memcpy(&out, &word, 4);
    return out;
}
inline void narrow(float x, float *out) { *out = x; }
inline void narrow(float x, Bf16 *out) { // to the nearest, ties to even
    uint32_t word;
    std::memcpy(&word, &x, 4);
    out->bits = x != x ? 0x7fc0 : uint16_t((word + 0x7fff + ((word >> 16) & 1)) >> 16);
}

// What is multiplied at once: SIZE numbers of a type, and how their products are added to a sum of LANES.
template <class W> struct Chunk {
    static constexpr int SIZE = LANES;
    Floats values;
    explicit Chunk(const float *from) { std::memcpy(&values, from, sizeof values); }
    void add(const Chunk &other, Floats &sum) const { sum += values * other.values; }
};
#ifdef __AVX512BF16__
template <> struct Chunk<Bf16> {
    static constexpr int SIZE = 2 * LANES;
    __m512bh values;
    explicit Chunk(const Bf16 *from) : values((__m512bh)_mm512_loadu_si512(from)) {}
    void add(const Chunk &other, Floats &sum) const {
        sum = (Floats)_mm512_dpbf16_ps((__m512)sum, values, other.values);
    }
};
#else
template <> struct Chunk<Bf16> {
    static constexpr int SIZE = LANES;
    Floats values;
    explicit Chunk(const Bf16 *from) {
        Halves halves;
        std::memcpy(&halves, from, sizeof halves);
        values = (Floats)(__builtin_convertvector(halves, Words) << 16);
    }
    void add(const Chunk &other, Floats &sum) const { sum += values * other.values; }
};
#endif

typedef float Eight __attribute__((vector_size(32)));
typedef float Four __attribute__((vector_size(16)));

inline Eight halves(Floats x) {
    Eight parts[2];
    std::memcpy(parts, &x, sizeof x);
    return parts[0] + parts[1];
}

inline float total(Floats x) { // by halves: the compiler keeps them in registers
    Eight eight = halves(x);
    Four four[2];
    std::memcpy(four, &eight, sizeof eight);
    four[0] += four[1];
    return (four[0][0] + four[0][2]) + (four[0][1] + four[0][3]);
}

// The same sums in the same order for B tokens; of eight the shuffles are shared, which cost as much as the products.
template <int B> inline void totals(const Floats *x, float *out) {
    if constexpr (B != 8) {
        for (int b = 0; b < B; b++) out[b] = total(x[b]);
    } else {
        Eight four[4], two[2];
        for (int i = 0; i < 4; i++) {
            Eight a = halves(x[2 * i]), b = halves(x[2 * i + 1]);
            four[i] = __builtin_shufflevector(a, b, 0, 1, 2, 3, 8, 9, 10, 11) +
                      __builtin_shufflevector(a, b, 4, 5, 6, 7, 12, 13, 14, 15);
        }
        for (int i = 0; i < 2; i++)
            two[i] = __builtin_shufflevector(four[2 * i], four[2 * i + 1], 0, 1, 4, 5, 8, 9, 12, 13) +
                     __builtin_shufflevector(four[2 * i], four[2 * i + 1], 2, 3, 6, 7, 10, 11, 14, 15);
        Eight one = __builtin_shufflevector(two[0], two[1], 0, 2, 4, 6, 8, 10, 12, 14) +
                    __builtin_shufflevector(two[0], two[1], 1, 3, 5, 7, 9, 11, 13, 15);
        std::memcpy(out, &one, sizeof one);
    }
}

} // namespace
