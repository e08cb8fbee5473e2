/* The search over one width of vectors; _pow.c includes this file once for each kind of processor.
 *
 * Expects: LANES, how many 64-bit words a vector holds (1 means plain integers); KERNEL_NAME(name), which makes a name
 * of its own for this kind; KERNEL_TARGET, the attribute that allows its instructions. All three are undefined again.
 */

#define STREAMS 4 /* vectors in flight for FNV: its chain of multiplications would leave the processor idle */
#define FNV_LANES (int)(STREAMS * sizeof(HALVES) / sizeof(uint32_t))

#if LANES == 1
typedef uint64_t KERNEL_NAME(words);
typedef uint32_t KERNEL_NAME(halves) __attribute__((vector_size(16))); /* SSE2 and NEON are everywhere */
#else
typedef uint64_t KERNEL_NAME(words) __attribute__((vector_size(8 * LANES)));
typedef uint32_t KERNEL_NAME(halves) __attribute__((vector_size(8 * LANES)));
#endif
#define WORDS KERNEL_NAME(words)
#define HALVES KERNEL_NAME(halves)

/* One round of Keccak-f[1600] from state a to state e (FIPS 202, section 3.2: theta, rho and pi, chi, iota).
 * Each line of ROW makes five output words from the five input words that rho and pi bring there. */
#define ROTATE(x, n) (((x) << (n)) | ((x) >> (64 - (n))))
#define ROW(out, b0, b1, b2, b3, b4)                                                                                   \
    do {                                                                                                               \
        const WORDS p = (b0), q = (b1), r = (b2), s = (b3), t = (b4);                                                  \
        e[(out) + 0] = p ^ (~q & r);                                                                                   \
        e[(out) + 1] = q ^ (~r & s);                                                                                   \
        e[(out) + 2] = r ^ (~s & t);                                                                                   \
        e[(out) + 3] = s ^ (~t & p);                                                                                   \
        e[(out) + 4] = t ^ (~p & q);                                                                                   \
    } while (0)

static inline __attribute__((always_inline)) KERNEL_TARGET void
KERNEL_NAME(keccak_round)(const WORDS *a, WORDS *e, uint64_t constant)
{
    const WORDS c0 = a[0] ^ a[5] ^ a[10] ^ a[15] ^ a[20];
    const WORDS c1 = a[1] ^ a[6] ^ a[11] ^ a[16] ^ a[21];
    const WORDS c2 = a[2] ^ a[7] ^ a[12] ^ a[17] ^ a[22];
    const WORDS c3 = a[3] ^ a[8] ^ a[13] ^ a[18] ^ a[23];
    const WORDS c4 = a[4] ^ a[9] ^ a[14] ^ a[19] ^ a[24];
    const WORDS d0 = c4 ^ ROTATE(c1, 1);
    const WORDS d1 = c0 ^ ROTATE(c2, 1);
    const WORDS d2 = c1 ^ ROTATE(c3, 1);
    const WORDS d3 = c2 ^ ROTATE(c4, 1);
    const WORDS d4 = c3 ^ ROTATE(c0, 1);

    ROW(0, a[0] ^ d0, ROTATE(a[6] ^ d1, 44), ROTATE(a[12] ^ d2, 43), ROTATE(a[18] ^ d3, 21), ROTATE(a[24] ^ d4, 14));
    e[0] ^= constant;
    ROW(5, ROTATE(a[3] ^ d3, 28), ROTATE(a[9] ^ d4, 20), ROTATE(a[10] ^ d0, 3), ROTATE(a[16] ^ d1, 45),
        ROTATE(a[22] ^ d2, 61));
    ROW(10, ROTATE(a[1] ^ d1, 1), ROTATE(a[7] ^ d2, 6), ROTATE(a[13] ^ d3, 25), ROTATE(a[19] ^ d4, 8),
        ROTATE(a[20] ^ d0, 18));
    ROW(15, ROTATE(a[4] ^ d4, 27), ROTATE(a[5] ^ d0, 36), ROTATE(a[11] ^ d1, 10), ROTATE(a[17] ^ d2, 15),
        ROTATE(a[23] ^ d3, 56));
    ROW(20, ROTATE(a[2] ^ d2, 62), ROTATE(a[8] ^ d3, 55), ROTATE(a[14] ^ d4, 39), ROTATE(a[15] ^ d0, 41),
        ROTATE(a[21] ^ d1, 2));
}

static inline __attribute__((always_inline)) KERNEL_TARGET void
KERNEL_NAME(permute)(WORDS *state)
{
    WORDS other[25];
    for (int round = 0; round < 24; round += 2) {
        KERNEL_NAME(keccak_round)(state, other, ROUND_CONSTANTS[round]);
        KERNEL_NAME(keccak_round)(other, state, ROUND_CONSTANTS[round + 1]);
    }
}

/* The first nonce in [first, stop) that SHA3-512 accepts, NOT_FOUND or CANCELLED.
 *
 * `text` holds the message of `first`. `memory` takes the whole padded message once per lane, interleaved word by
 * word: constant words are written once, the few that hold digits for every batch. */
static KERNEL_TARGET int64_t
KERNEL_NAME(search_sha3)(Text *text, uint64_t first, uint64_t stop, uint64_t limit, void *memory,
                         const volatile unsigned char *cancel)
{
    WORDS *const message = memory;
    uint64_t *const lanes = memory;
    const size_t blocks = text->padded_length / RATE;
    const size_t constant_blocks = text->numbers[0].message_begin / RATE;
    WORDS absorbed[25];

    memset(absorbed, 0, sizeof absorbed);
    for (size_t word = 0; word < text->padded_length / 8; word++) {
        for (int lane = 0; lane < LANES; lane++)
            memcpy(&lanes[word * LANES + lane], text->message + word * 8, 8);
    }
    for (size_t block = 0; block < constant_blocks; block++) {
        for (int word = 0; word < RATE / 8; word++)
            absorbed[word] ^= message[block * (RATE / 8) + word];
        KERNEL_NAME(permute)(absorbed);
    }
    for (uint64_t nonce = first; nonce < stop; nonce += LANES) {
        WORDS state[25];
        uint64_t digest[LANES];

        if (*cancel)
            return CANCELLED;
        for (int lane = 0; lane < LANES; lane++) {
            for (int number = 0; number < text->number_count; number++) {
                const size_t end = (text->numbers[number].message_end + 7) / 8;
                for (size_t word = text->numbers[number].message_begin / 8; word < end; word++)
                    memcpy(&lanes[word * LANES + lane], text->message + word * 8, 8);
            }
            text_advance(text, nonce + lane);
        }
        memcpy(state, absorbed, sizeof state);
        for (size_t block = constant_blocks; block < blocks; block++) {
            for (int word = 0; word < RATE / 8; word++)
                state[word] ^= message[block * (RATE / 8) + word];
            KERNEL_NAME(permute)(state);
        }
        memcpy(digest, state, sizeof digest);
        for (int lane = 0; lane < LANES && nonce + lane < stop; lane++) {
            if (__builtin_bswap64(digest[lane]) <= limit)
                return (int64_t)(nonce + lane);
        }
    }
    return NOT_FOUND;
}

/* The same for FNV-1a. `memory` takes one column of FNV_LANES codes for each place of the message that changes. */
static KERNEL_TARGET int64_t
KERNEL_NAME(search_fnv)(Text *text, uint64_t first, uint64_t stop, uint32_t limit, void *memory,
                        const volatile unsigned char *cancel)
{
    uint32_t *const columns = memory;
    const Number *const last = &text->numbers[text->number_count - 1];
    const size_t begin = text->numbers[0].message_begin;
    uint32_t prefix = FNV_OFFSET;

    for (size_t place = 0; place < begin; place++)
        prefix = (prefix ^ text->message[place]) * FNV_PRIME;
    for (uint64_t nonce = first; nonce < stop; nonce += FNV_LANES) {
        HALVES hash[STREAMS];
        uint32_t result[FNV_LANES];

        if (*cancel)
            return CANCELLED;
        for (int lane = 0; lane < FNV_LANES; lane++) {
            size_t column = 0;
            for (int number = 0; number < text->number_count; number++) {
                const Number *const n = &text->numbers[number];
                for (size_t place = n->message_begin; place < n->message_end; place++)
                    columns[column++ * FNV_LANES + lane] = text->message[place];
            }
            text_advance(text, nonce + lane);
        }
        for (int stream = 0; stream < STREAMS; stream++)
            hash[stream] = (HALVES){0} + prefix;
        const HALVES *column = memory;
        for (const Number *n = text->numbers; n <= last; n++) {
            const size_t constant_end = n < last ? n[1].message_begin : text->length;
            for (size_t place = n->message_begin; place < n->message_end; place++, column += STREAMS) {
                for (int stream = 0; stream < STREAMS; stream++)
                    hash[stream] = (hash[stream] ^ column[stream]) * FNV_PRIME;
            }
            for (size_t place = n->message_end; place < constant_end; place++) {
                const uint32_t code = text->message[place];
                for (int stream = 0; stream < STREAMS; stream++)
                    hash[stream] = (hash[stream] ^ code) * FNV_PRIME;
            }
        }
        for (int stream = 0; stream < STREAMS; stream++) {
            HALVES h = hash[stream];
            h = (h ^ (h >> 16)) * 2246822507u;
            h = (h ^ (h >> 13)) * 3266489909u;
            hash[stream] = h ^ (h >> 16);
        }
        memcpy(result, hash, sizeof result);
        for (int lane = 0; lane < FNV_LANES && nonce + lane < stop; lane++) {
            if (result[lane] <= limit)
                return (int64_t)(nonce + lane);
        }
    }
    return NOT_FOUND;
}

#undef WORDS
#undef HALVES
#undef STREAMS
#undef FNV_LANES
#undef ROTATE
#undef ROW
#undef LANES
#undef KERNEL_NAME
#undef KERNEL_TARGET
