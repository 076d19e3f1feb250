// One decoding step of a transformer on a processor: N tokens, each of some row of the cache at some position.
//
// A token's arithmetic does not depend on which tokens stand beside it (every sum has one fixed order), so a request
// gets bit for bit in a batch what it gets alone. Activations are f32; weights and cache are f32 or bf16. The threads
// share the rows of each matrix and meet at a barrier where one part needs the whole of another. step.py is its
// caller and holds the same structs; models/transformer.py is the reference that it is tested against.

#include <omp.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "few_bits.h"
#include "lanes.h"

namespace {

constexpr int SPINS = 40000; // looks at the barrier before a thread sleeps: tens of microseconds, less than to wake it

// out[b] = w · x_b for one row of a matrix and B tokens. Memory is what a step waits for: the row is read once, in one
// stream, and what comes next is called for in time. Several sums run side by side, as each waits for its last addition.
template <int B, class W> inline void products(const W *w, int64_t width, const W *x, int64_t stride, float *out) {
    constexpr int SIZE = Chunk<W>::SIZE;
    Floats sums[SUMS][B] = {};
    int64_t i = 0;
    for (; i + SUMS * SIZE <= width; i += SUMS * SIZE)
        for (int s = 0; s < SUMS; s++) {
            const W *at = w + i + s * SIZE;
            Chunk<W> left(at);
            __builtin_prefetch((const char *)at + AHEAD);
            for (int b = 0; b < B; b++) left.add(Chunk<W>(x + b * stride + i + s * SIZE), sums[s][b]);
        }
    for (; i + SIZE <= width; i += SIZE)
        for (int b = 0; b < B; b++) Chunk<W>(w + i).add(Chunk<W>(x + b * stride + i), sums[0][b]);
    for (int b = 0; b < B; b++)
        for (int s = 1; s < SUMS; s++) sums[0][b] += sums[s][b];
    totals<B>(sums[0], out);
    for (; i < width; i++)
        for (int b = 0; b < B; b++) out[b] += widen(w[i]) * widen(x[b * stride + i]);
}

template <int B, class W, class Take>
inline void tile(const W *w, int64_t row, int64_t width, const W *x, int64_t token, Take take) {
    float out[B];
    products<B>(w + row * width, width, x + token * width, width, out);
    for (int b = 0; b < B; b++) take(row, token + b, out[b]);
}

// take(row, token, w_row · x_token) for the rows from .. to of a matrix and all tokens
template <class W, class Take>
inline void multiply(const W *w, int64_t from, int64_t to, int64_t width, const W *x, int64_t count, Take take) {
    for (int64_t row = from; row < to; row++) {
        int64_t b = 0;
        for (; b + TILE <= count; b += TILE) tile<TILE>(w, row, width, x, b, take);
        if (count - b >= 4) tile<4>(w, row, width, x, b, take), b += 4;
        if (count - b == 3) tile<3>(w, row, width, x, b, take);
        if (count - b == 2) tile<2>(w, row, width, x, b, take);
        if (count - b == 1) tile<1>(w, row, width, x, b, take);
    }
}

struct Barrier {
    int threads;
    std::atomic<int> waiting{0};
    std::atomic<int> round{0};
    void meet() {
        int now = round.load();
        if (waiting.fetch_add(1) + 1 == threads) {
            waiting.store(0);
            round.store(now + 1);
            round.notify_all();
            return;
        }
        for (int spins = 0; round.load() == now; spins++)
            if (spins > SPINS) round.wait(now); // asleep: where others want the processor, spinning would keep it
    }
};

struct Share { int64_t from, to; }; // one thread's part of so many rows
inline Share share(int64_t rows, int thread, int threads) {
    return {rows * thread / threads, rows * (thread + 1) / threads};
}

} // namespace

extern "C" {

struct Norm { const float *gain, *bias; }; // no gain: no norm; no bias: none

struct Layer {
    Matrix qkv, out, up, down;
    const float *qkv_bias, *out_bias, *up_bias, *down_bias;
    Norm before_attention, after_attention, before_feedforward, after_feedforward, queries, keys;
    int64_t window; // 0: none
    int64_t turn;   // which of the tables of cos and sin
};

struct Model {
    const Layer *layers;
    Matrix table; // (V, D)
    const float *table_bias;
    Norm last;
    int64_t depth, width, heads, groups, head, inner, vocabulary;
    int64_t half_weights; // 1: bf16, of weights as they are and of the cache; 0: f32
    int64_t layer_norm;   // 1: layer norm; 0: root mean square
    int64_t activation;   // as ACTIVATIONS of step.py
    int64_t gated, rotary;
    float eps, scale;
};

struct Tokens {
    int64_t count;
    const int64_t *rows, *positions; // (N): the row of the cache and the place in it
    float *x;                        // (N, D): embeddings; hidden states afterwards
    const float *cosines, *sines;    // (tables, N, K/2)
    void *keys, *values;             // (L, rows, S, G, K)
    int64_t cache_rows, slots;
    const int64_t *wanted; // the tokens whose logits are asked for
    int64_t wanted_count;
    float *logits; // (wanted, V)
};

} // extern "C"

namespace {

void normalise(const Norm &norm, bool layer_norm, float eps, const float *x, float *out, int64_t width) {
    float mean = 0, spread = 0;
    if (layer_norm) {
        for (int64_t i = 0; i < width; i++) mean += x[i];
        mean /= width;
    }
    for (int64_t i = 0; i < width; i++) spread += (x[i] - mean) * (x[i] - mean);
    float by = 1 / std::sqrt(spread / width + eps);
    for (int64_t i = 0; i < width; i++)
        out[i] = (x[i] - mean) * by * norm.gain[i] + (norm.bias ? norm.bias[i] : 0);
}

float activate(int64_t kind, float x) {
    switch (kind) {
    case 0: return x / (1 + std::exp(-x));                                                        // silu
    case 1: return x / 2 * (1 + std::erf(x * 0.70710678118654752f));                              // gelu
    case 2: return x / 2 * (1 + std::tanh(0.79788456080286536f * (x + 0.044715f * x * x * x)));   // gelu_tanh
    default: return x > 0 ? x : 0;                                                                // relu
    }
}

void turn(float *x, int64_t head, const float *cosines, const float *sines) {
    for (int64_t i = 0; i < head / 2; i++) {
        float low = x[i], high = x[i + head / 2];
        x[i] = low * cosines[i] - high * sines[i];
        x[i + head / 2] = high * cosines[i] + low * sines[i];
    }
}

template <class W> struct Worker {
    const Model &m;
    const Tokens &t;
    Barrier &barrier;
    int thread, threads;
    float *mixed, *given;       // shared: (N, (H + 2G) K), (N, D)
    W *attended, *inner;        // shared: (N, H K), (N, F)
    std::vector<float> weights; // own: (S or D)
    std::vector<float> gates;   // own: (its part of F, N)
    std::vector<W> normed;      // own: (N, D)
    Input input;                // own: what a matrix of few bits is given

    W *place(void *cache, int64_t layer, int64_t row, int64_t position) const {
        return (W *)cache + ((layer * t.cache_rows + row) * t.slots + position) * m.groups * m.head;
    }

    // of the hidden states of these tokens; every thread computes all of them: cheaper than to wait
    const W *norms(const Norm &norm, int64_t count, const int64_t *which = nullptr) {
        for (int64_t n = 0; n < count; n++) {
            normalise(norm, m.layer_norm, m.eps, t.x + (which ? which[n] : n) * m.width, weights.data(), m.width);
            for (int64_t i = 0; i < m.width; i++) narrow(weights[i], &normed[n * m.width + i]);
        }
        return normed.data();
    }

    // take(row, token, w_row · x_token) for these rows; `again`: the same tokens as the last time
    template <class Take>
    void product(const Matrix &w, Share rows, int64_t width, const W *x, int64_t count, Take take, bool again = false) {
        if (w.kind == WHOLE) return multiply((const W *)w.numbers, rows.from, rows.to, width, x, count, take);
        if (!again) input.read(w, x, count, width);
        multiply_few(w, rows.from, rows.to, input, count, take);
    }

    void project(const Matrix &w, const float *bias, int64_t rows, int64_t width, const W *x, float *out,
                 bool adding = false) {
        product(w, share(rows, thread, threads), width, x, t.count, [&](int64_t row, int64_t n, float value) {
            value += bias ? bias[row] : 0;
            out[n * rows + row] = adding ? out[n * rows + row] + value : value;
        });
        barrier.meet();
    }

    // onto the residual, through a norm where there is one
    void project_and_add(const Matrix &w, const float *bias, int64_t width, const W *x, const Norm &after) {
        if (!after.gain) return project(w, bias, m.width, width, x, t.x, true);
        project(w, bias, m.width, width, x, given);
        for (int64_t n = thread; n < t.count; n += threads) {
            float *from = given + n * m.width, *to = t.x + n * m.width;
            normalise(after, m.layer_norm, m.eps, from, from, m.width);
            for (int64_t i = 0; i < m.width; i++) to[i] += from[i];
        }
        barrier.meet();
    }

    void into_cache(const Layer &layer, int64_t l) {
        int64_t K = m.head, stride = (m.heads + 2 * m.groups) * K, all = m.heads + m.groups;
        const float *cosines = t.cosines + layer.turn * t.count * K / 2, *sines = t.sines + layer.turn * t.count * K / 2;
        for (int64_t job = thread; job < t.count * all; job += threads) {
            int64_t n = job / all, h = job % all;
            float *x = mixed + n * stride + h * K;
            const Norm &norm = h < m.heads ? layer.queries : layer.keys;
            if (norm.gain) normalise(norm, false, m.eps, x, x, K);
            if (m.rotary) turn(x, K, cosines + n * K / 2, sines + n * K / 2);
            if (h < m.heads) continue;
            int64_t g = h - m.heads;
            W *key = place(t.keys, l, t.rows[n], t.positions[n]) + g * K;
            W *value = place(t.values, l, t.rows[n], t.positions[n]) + g * K;
            for (int64_t i = 0; i < K; i++) narrow(x[i], key + i), narrow(x[m.groups * K + i], value + i);
        }
        barrier.meet();
    }

    void attend(const Layer &layer, int64_t l) {
        int64_t K = m.head, stride = (m.heads + 2 * m.groups) * K, step = m.groups * K;
        std::vector<W> q(K);
        std::vector<float> out(K);
        for (int64_t job = thread; job < t.count * m.heads; job += threads) {
            int64_t n = job / m.heads, h = job % m.heads, g = h / (m.heads / m.groups), last = t.positions[n];
            int64_t first = layer.window ? std::max<int64_t>(0, last + 1 - layer.window) : 0;
            const W *keys = place(t.keys, l, t.rows[n], 0) + g * K, *values = place(t.values, l, t.rows[n], 0) + g * K;
            for (int64_t i = 0; i < K; i++) narrow(mixed[n * stride + h * K + i], &q[i]);
            float best = -INFINITY, sum = 0, found;
            for (int64_t s = first; s <= last; s++) {
                products<1>(keys + s * step, K, q.data(), K, &found);
                best = std::max(best, weights[s] = found * m.scale);
            }
            for (int64_t s = first; s <= last; s++) sum += weights[s] = std::exp(weights[s] - best);
            std::fill(out.begin(), out.end(), 0.f);
            for (int64_t s = first; s <= last; s++)
                for (int64_t i = 0; i < K; i++) out[i] += weights[s] * widen(values[s * step + i]);
            for (int64_t i = 0; i < K; i++) narrow(out[i] / sum, attended + (n * m.heads + h) * K + i);
        }
        barrier.meet();
    }

    void feed_forward(const Layer &layer) {
        const W *x = norms(layer.before_feedforward, t.count);
        int64_t F = m.inner;
        Share mine = share(F, thread, threads);
        gates.resize((mine.to - mine.from) * t.count);
        product(layer.up, mine, m.width, x, t.count, [&](int64_t row, int64_t n, float value) {
            value = activate(m.activation, value + (layer.up_bias ? layer.up_bias[row] : 0));
            if (m.gated)
                gates[(row - mine.from) * t.count + n] = value;
            else
                narrow(value, inner + n * F + row);
        });
        if (m.gated)
            product(layer.up, {F + mine.from, F + mine.to}, m.width, x, t.count,
                    [&](int64_t row, int64_t n, float value) {
                        value += layer.up_bias ? layer.up_bias[row] : 0;
                        narrow(value * gates[(row - F - mine.from) * t.count + n], inner + n * F + row - F);
                    }, true);
        barrier.meet();
        project_and_add(layer.down, layer.down_bias, F, inner, layer.after_feedforward);
    }

    void logits() {
        const W *x = norms(m.last, t.wanted_count, t.wanted);
        product(m.table, share(m.vocabulary, thread, threads), m.width, x, t.wanted_count,
                [&](int64_t row, int64_t n, float value) {
                    t.logits[n * m.vocabulary + row] = value + (m.table_bias ? m.table_bias[row] : 0);
                });
    }

    void run() {
        normed.resize(t.count * m.width);
        weights.resize(std::max(t.slots, m.width));
        for (int64_t l = 0; l < m.depth; l++) {
            const Layer &layer = m.layers[l];
            project(layer.qkv, layer.qkv_bias, (m.heads + 2 * m.groups) * m.head, m.width,
                    norms(layer.before_attention, t.count), mixed);
            into_cache(layer, l);
            attend(layer, l);
            project_and_add(layer.out, layer.out_bias, m.heads * m.head, attended, layer.after_attention);
            feed_forward(layer);
        }
        logits();
    }
};

template <class W> void run(const Model &m, const Tokens &t, int threads) {
    int64_t N = t.count, heads = m.heads * m.head;
    std::vector<float> mixed(N * (m.heads + 2 * m.groups) * m.head), given(N * m.width);
    std::vector<W> attended(N * heads), inner(N * m.inner);
    Barrier barrier;
#pragma omp parallel num_threads(threads)
    {
#pragma omp single
        barrier.threads = omp_get_num_threads();
        Worker<W>{m, t, barrier, omp_get_thread_num(), omp_get_num_threads(),
                  mixed.data(), given.data(), attended.data(), inner.data(), {}, {}, {}, {}}.run();
    }
}

} // namespace

extern "C" void amauta_step(const Model *model, const Tokens *tokens, int threads) {
    if (model->half_weights)
        run<Bf16>(*model, *tokens, threads);
    else
        run<float>(*model, *tokens, threads);
}
