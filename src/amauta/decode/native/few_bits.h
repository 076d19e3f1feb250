// Products with matrices whose weights have 8 or 4 bits (nn/codes.py tells how they lie).
//
// Weights are never turned into numbers of 32 bits where the processor multiplies bytes: a token is, once for each
// matrix, written as whole numbers of 16 bits (one step a token), each two signed digits of 8 bits. A product of a byte
// of code with each digit adds up exactly, and scales come in once for each group of weights. So what is lost is the
// rounding of the input to 1/32512 of its largest number: less than bf16 loses. Elsewhere, and for NF4, f32 is used.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "lanes.h"

#if defined(__AVX512VNNI__) && defined(__AVX512BW__) && defined(__F16C__)
#define BYTES 1
#else
#define BYTES 0
#endif

enum Kind : int64_t { WHOLE, INT8, INT4, NF4 }; // in the order of step.py

struct Matrix {
    const void *numbers;  // f32 or bf16, or codes
    const void *scales;   // (rows, groups): f16, or f32 when wide
    const uint8_t *zeros; // (rows, groups); none: 128 or 8
    int64_t kind, group, wide;
};

namespace {

constexpr int RUN = 32;       // weights that share 16 bytes of 4-bit codes
constexpr int BLOCK = 128;    // 4-bit codes in a register
constexpr int LARGEST = 32512; // so that both digits fit in 8 signed bits
constexpr float CODEBOOK[16] = {
    -1.0f, -0.6961928009986877f, -0.5250730514526367f, -0.39491748809814453f, -0.28444138169288635f,
    -0.18477343022823334f, -0.09105003625154495f, 0.0f, 0.07958029955625534f, 0.16093020141124725f,
    0.24611230194568634f, 0.33791524171829224f, 0.44070982933044434f, 0.5626170039176941f, 0.7229568362236023f, 1.0f,
};

// Whether a row is multiplied in bytes: a register of codes must not begin in one group and end in the next but one.
inline bool in_bytes(const Matrix &m, int64_t width) {
    int64_t wide = m.kind == INT4 ? BLOCK : 64;
    return BYTES && m.kind != NF4 && (m.group == width || wide % m.group == 0 || m.group % wide == 0);
}

inline float real(const void *scales, int64_t i, bool wide) {
    return wide ? ((const float *)scales)[i] : float(((const _Float16 *)scales)[i]);
}

// What N tokens bring to a matrix: as f32, or as digits with the step of each token and the sum of each group.
struct Input {
    int64_t width = 0, padded = 0, groups = 0, room = 0; // room: of a token's sums
    std::vector<float> reals;                            // (N, width)
    std::vector<int8_t> high, low;                       // (N, padded), in the order in which codes come
    std::vector<float> steps, sums;                      // (N), (N, room)

    template <class W> void read(const Matrix &m, const W *x, int64_t count, int64_t size) {
        width = size, groups = width / m.group, room = (groups + 15) / 16 * 16;
        reals.resize(count * width);
        for (int64_t i = 0; i < count * width; i++) reals[i] = widen(x[i]);
        if (!in_bytes(m, width)) return;
        padded = (width + BLOCK - 1) / BLOCK * BLOCK;
        high.assign(count * padded, 0), low.assign(count * padded, 0);
        steps.resize(count), sums.assign(count * room, 0.f);
        whole.resize(width);
        for (int64_t n = 0; n < count; n++) digits(m, n);
    }

  private:
    std::vector<int32_t> whole; // (width)

    void digits(const Matrix &m, int64_t n) {
        const float *x = &reals[n * width];
        float most = 0;
        for (int64_t i = 0; i < width; i++) most = std::max(most, std::fabs(x[i]));
        steps[n] = most / LARGEST;
        float by = most > 0 ? LARGEST / most : 0;
        for (int64_t i = 0; i < width; i++) whole[i] = int32_t(std::nearbyintf(x[i] * by));
        for (int64_t g = 0; g < groups; g++) {
            int64_t sum = 0;
            for (int64_t i = g * m.group; i < (g + 1) * m.group; i++) sum += whole[i];
            sums[n * room + g] = float(sum);
        }
        int8_t *h = &high[n * padded], *l = &low[n * padded];
        for (int64_t run = 0; run < width; run += RUN) {
            int64_t first = run, second = run + RUN / 2; // places of a run's two halves
            if (m.kind == INT4) {
                first = run / BLOCK * BLOCK + run % BLOCK / 2;
                second = first + BLOCK / 2;
            }
            for (int64_t i = 0; i < RUN / 2; i++) {
                split(whole[run + i], h + first + i, l + first + i);
                split(whole[run + RUN / 2 + i], h + second + i, l + second + i);
            }
        }
    }
    static void split(int32_t x, int8_t *h, int8_t *l) {
        int32_t high = (x + 128) >> 8;
        *h = int8_t(high), *l = int8_t(x - high * 256);
    }
};

#if BYTES

// 16 scales from the i-th on; those beyond the last are 0
inline __m512 scales_of(const Matrix &m, int64_t row, int64_t i, int64_t groups) {
    __mmask16 there = groups - i >= 16 ? 0xffff : (1u << (groups - i)) - 1;
    int64_t at = row * groups + i;
    if (m.wide) return _mm512_maskz_loadu_ps(there, (const float *)m.scales + at);
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(there, (const uint16_t *)m.scales + at));
}

// Which of a row's scales each lane of a register of codes takes: for the lanes of one, counted from the first.
struct Lanes {
    __m512i which;
    int64_t apart; // 0: all lanes take one
};

// `wide`: weights in a register; `lanes`: lanes that hold a run of 32 weights
inline Lanes lanes_of(int64_t group, int64_t wide, int64_t lanes) {
    alignas(64) int32_t which[LANES];
    for (int i = 0; i < LANES; i++) which[i] = group < wide ? i / lanes * RUN / group : 0;
    return {_mm512_load_si512(which), group < wide ? wide / group : 0};
}

// R rows of codes with B tokens: the whole numbers of each register, times their scales. out (R, B).
template <int R, int B, bool HALF>
inline void rows_of_bytes(const Matrix &m, int64_t row, const Input &in, int64_t token, const Lanes &lanes, float *out) {
    constexpr int64_t WIDE = HALF ? BLOCK : 64;
    const int64_t bytes = HALF ? in.width / 2 : in.width, G = m.group, ahead = std::max<int64_t>(AHEAD, R * bytes);
    const uint8_t *codes = (const uint8_t *)m.numbers + row * bytes;
    const uint8_t *next = codes + ahead; // called for in the order in which they lie, not in that of their use
    const __m512i nibble = _mm512_set1_epi8(15), none = _mm512_setzero_si512();
    Floats sums[R * B] = {};
    __m512 scales[R];
    int64_t held = -16; // the first of the 16 scales at hand
    for (int64_t at = 0, i = 0; i < bytes; at += WIDE, i += 64) {
        int64_t g = at / G;
        if (g + std::max<int64_t>(lanes.apart, 1) > held + 16) {
            held = g;
            for (int r = 0; r < R; r++) scales[r] = scales_of(m, row + r, g, in.groups);
        }
        const __m512i which = _mm512_add_epi32(lanes.which, _mm512_set1_epi32(int(g - held)));
        const __mmask64 there = bytes - i >= 64 ? ~0ull : (1ull << (bytes - i)) - 1;
#pragma GCC unroll 8
        for (int r = 0; r < R; r++) {
            __builtin_prefetch(next += 64);
            __m512i c = _mm512_maskz_loadu_epi8(there, codes + r * bytes + i);
            __m512i first = HALF ? _mm512_and_si512(c, nibble) : c;
            __m512i second = HALF ? _mm512_and_si512(_mm512_srli_epi16(c, 4), nibble) : c;
            __m512 s = _mm512_permutexvar_ps(which, scales[r]);
#pragma GCC unroll 8
            for (int b = 0; b < B; b++) {
                const int8_t *h = &in.high[(token + b) * in.padded + at], *l = &in.low[(token + b) * in.padded + at];
                __m512i sum = _mm512_dpbusd_epi32(none, first, _mm512_loadu_si512(h));
                if (HALF) sum = _mm512_dpbusd_epi32(sum, second, _mm512_loadu_si512(h + 64));
                sum = _mm512_dpbusd_epi32(_mm512_slli_epi32(sum, 8), first, _mm512_loadu_si512(l));
                if (HALF) sum = _mm512_dpbusd_epi32(sum, second, _mm512_loadu_si512(l + 64));
                Floats &to = sums[r * B + b];
                to = (Floats)_mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), s, (__m512)to);
            }
        }
    }
    const __m512 zero = _mm512_set1_ps(HALF ? 8 : 128);
    for (int r = 0; r < R; r++)
        for (int64_t g = 0; g < in.groups; g += 16) { // less what the zero of each group took
            __m512 taken = zero;
            if (m.zeros) {
                __mmask16 there = in.groups - g >= 16 ? 0xffff : (1u << (in.groups - g)) - 1;
                __m128i zeros = _mm_maskz_loadu_epi8(there, m.zeros + (row + r) * in.groups + g);
                taken = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(zeros));
            }
            taken = _mm512_mul_ps(taken, scales_of(m, row + r, g, in.groups));
            for (int b = 0; b < B; b++) {
                Floats &from = sums[r * B + b];
                from = (Floats)_mm512_fnmadd_ps(taken, _mm512_loadu_ps(&in.sums[(token + b) * in.room + g]), (__m512)from);
            }
        }
    totals<R * B>(sums, out);
    for (int r = 0; r < R; r++)
        for (int b = 0; b < B; b++) out[r * B + b] *= in.steps[token + b];
}

#endif

// A row of any kind with B tokens, in f32: 32 weights at a time.
template <int B> inline void row_of_reals(const Matrix &m, int64_t row, const Input &in, int64_t token, float *out) {
    const int64_t width = in.width, half = m.kind != INT8;
    const uint8_t *codes = (const uint8_t *)m.numbers + (half ? row * width / 2 : row * width);
    Floats sums[B] = {};
    for (int64_t i = 0; i < width; i += RUN) {
        int64_t at = row * in.groups + i / m.group;
        float scale = real(m.scales, at, m.wide);
        float zero = m.zeros ? m.zeros[at] : half ? 8 : 128;
        Floats first, second;
#ifdef __AVX512F__
        if (m.kind == NF4) {
            const __m512 table = _mm512_loadu_ps(CODEBOOK);
            __m512i c = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(codes + i / 2)));
            first = (Floats)_mm512_permutexvar_ps(c, table);
            second = (Floats)_mm512_permutexvar_ps(_mm512_srli_epi32(c, 4), table);
        } else
#endif
            for (int j = 0; j < LANES; j++) {
                int a = half ? codes[i / 2 + j] & 15 : codes[i + j], b = half ? codes[i / 2 + j] >> 4 : codes[i + LANES + j];
                first[j] = m.kind == NF4 ? CODEBOOK[a] : a - zero;
                second[j] = m.kind == NF4 ? CODEBOOK[b] : b - zero;
            }
        first *= scale, second *= scale;
        for (int b = 0; b < B; b++) {
            Floats x, y;
            std::memcpy(&x, &in.reals[(token + b) * width + i], sizeof x);
            std::memcpy(&y, &in.reals[(token + b) * width + i + LANES], sizeof y);
            sums[b] += first * x, sums[b] += second * y;
        }
    }
    totals<B>(sums, out);
}

// The rows from .. to with B tokens, as many rows at a time as make eight sums
template <int B, class Take>
inline void rows_with(const Matrix &m, int64_t from, int64_t to, const Input &in, int64_t token, Take take) {
    int64_t row = from;
#if BYTES
    const Lanes lanes = m.kind == INT4 ? lanes_of(m.group, BLOCK, 4) : lanes_of(m.group, 64, 8);
    auto some = [&]<int R, bool HALF>() {
        for (; row + R <= to; row += R) {
            float out[R * B];
            rows_of_bytes<R, B, HALF>(m, row, in, token, lanes, out);
            for (int r = 0; r < R; r++)
                for (int b = 0; b < B; b++) take(row + r, token + b, out[r * B + b]);
        }
    };
    constexpr int R = TILE / B, LESS = R > 4 ? 4 : R; // more rows of 8 bits at a time only disturb their stream
    if (in_bytes(m, in.width)) {
        if (m.kind == INT4)
            some.template operator()<R, true>(), some.template operator()<1, true>();
        else
            some.template operator()<LESS, false>(), some.template operator()<1, false>();
    }
#endif
    for (; row < to; row++) {
        float out[B];
        row_of_reals<B>(m, row, in, token, out);
        for (int b = 0; b < B; b++) take(row, token + b, out[b]);
    }
}

// take(row, token, w_row · x_token) for the rows from .. to of a matrix of few bits and all tokens
template <class Take>
inline void multiply_few(const Matrix &m, int64_t from, int64_t to, const Input &in, int64_t count, Take take) {
    constexpr int64_t NEAR = 64; // rows that stay in the nearest cache while all tokens meet them
    for (int64_t row = from; row < to; row += NEAR) {
        int64_t end = std::min(to, row + NEAR), b = 0;
        for (; b + TILE <= count; b += TILE) rows_with<TILE>(m, row, end, in, b, take);
        if (count - b >= 4) rows_with<4>(m, row, end, in, b, take), b += 4;
        if (count - b == 3) rows_with<3>(m, row, end, in, b, take);
        if (count - b == 2) rows_with<2>(m, row, end, in, b, take);
        if (count - b == 1) rows_with<1>(m, row, end, in, b, take);
    }
}

} // namespace
