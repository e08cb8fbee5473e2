/* The proof-of-work search in machine code; proof_of_work.py has the theory and the same search in Python.
 *
 * A search tries nonces i on the message
 *
 *     seed || base64(head || decimal(i) [ || middle || decimal(i >> 1) ] || tail)
 *
 * and gives the first whose hash, cut to its leading 64 bits (SHA3-512) or whole (32 bits, FNV), is at most `limit`.
 *
 * Where the time goes, and what is done about it. Nine tenths of the message lie behind the nonce, so remembering the
 * hash of the constant prefix saves one permutation of ten and no more; the win is to hash several nonces at once, one
 * in each lane of a vector (_pow_lanes.h). Between two nonces only the base64 groups that hold changed digits are
 * encoded again: while the numbers keep their count of digits the message keeps its layout, and a range of nonces is
 * cut where a count changes (at 10^k for i, at 2*10^k for i >> 1). Digits count up in place, in decimal.
 *
 * The vectors are those of GCC and Clang. On x86-64 the widest that the processor has is chosen when the module runs,
 * so one binary serves all; elsewhere plain 64-bit integers are used. The lock of the interpreter is released while
 * searching, and the flag `cancel` is read before every batch of nonces, some microseconds apart.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if !defined(__GNUC__)
#error "needs the vector extensions of GCC or Clang; without this module the search runs in Python"
#endif
#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "lanes are filled byte by byte in little-endian order; without this module the search runs in Python"
#endif

#define NOT_FOUND (-1)
#define CANCELLED (-2)

#define RATE 72           /* bytes that SHA3-512 takes per permutation */
#define SHA3_PADDING 0x06 /* domain bits and first padding bit of SHA-3 */
#define FNV_OFFSET 2166136261u
#define FNV_PRIME 16777619u

#define MAX_NONCE 1000000000000000000u /* keeps every decimal within 19 digits */
#define MAX_TEXT (1 << 16)             /* bytes of seed and JSON; real ones have about 550 */
#define MAX_LANES 64
#define VECTOR_ALIGNMENT 64

static const char ALPHABET[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static const uint64_t ROUND_CONSTANTS[24] = {
    0x0000000000000001u, 0x0000000000008082u, 0x800000000000808au, 0x8000000080008000u, 0x000000000000808bu,
    0x0000000080000001u, 0x8000000080008081u, 0x8000000000008009u, 0x000000000000008au, 0x0000000000000088u,
    0x0000000080008009u, 0x000000008000000au, 0x000000008000808bu, 0x800000000000008bu, 0x8000000000008089u,
    0x8000000000008003u, 0x8000000000008002u, 0x8000000000000080u, 0x000000000000800au, 0x800000008000000au,
    0x8000000080008081u, 0x8000000000008080u, 0x0000000080000001u, 0x8000000080008008u,
};

/* A decimal number inside the JSON text, and the part of the message that changes with it. */
typedef struct {
    size_t json_begin, json_end;
    size_t message_begin, message_end;
} Number;

/* The message of one nonce. numbers[0] is the nonce, numbers[1], where there is one, its half. */
typedef struct {
    unsigned char *json;
    size_t json_length;
    unsigned char *message;
    size_t seed_length, length; /* of the message in bytes */
    size_t padded_length;       /* the same with SHA-3's padding: a multiple of RATE */
    Number numbers[2];
    int number_count;
} Text;

/* The parts that a caller gives. */
typedef struct {
    Py_buffer seed, head, middle, tail;
} Parts;

static void
text_encode_group(Text *text, size_t group)
{
    const unsigned char *in = text->json + 3 * group;
    unsigned char *out = text->message + text->seed_length + 4 * group;
    const size_t rest = text->json_length - 3 * group;
    const unsigned second = rest > 1 ? in[1] : 0, third = rest > 2 ? in[2] : 0;

    out[0] = ALPHABET[in[0] >> 2];
    out[1] = ALPHABET[(in[0] & 3) << 4 | second >> 4];
    out[2] = rest > 1 ? ALPHABET[(second & 15) << 2 | third >> 6] : '=';
    out[3] = rest > 2 ? ALPHABET[third & 63] : '=';
}

/* Add one to a number; the caller sees to it that the count of digits suffices, except past the end of a range. */
static void
text_count_up(Text *text, const Number *number)
{
    size_t digit = number->json_end - 1;

    while (text->json[digit] == '9' && digit > number->json_begin)
        text->json[digit--] = '0';
    text->json[digit]++;
    for (size_t group = digit / 3; group <= (number->json_end - 1) / 3; group++)
        text_encode_group(text, group);
}

/* Turn the message of `nonce` into that of the next one. */
static void
text_advance(Text *text, uint64_t nonce)
{
    text_count_up(text, &text->numbers[0]);
    if (text->number_count == 2 && (nonce & 1))
        text_count_up(text, &text->numbers[1]);
}

static size_t
append_number(Text *text, Number *number, uint64_t value)
{
    char digits[20];
    size_t count = 0;

    do {
        digits[count++] = (char)('0' + value % 10);
        value /= 10;
    } while (value > 0);
    number->json_begin = text->json_length;
    number->json_end = text->json_length + count;
    while (count > 0)
        text->json[text->json_length++] = (unsigned char)digits[--count];
    number->message_begin = text->seed_length + number->json_begin / 3 * 4;
    number->message_end = text->seed_length + (number->json_end - 1) / 3 * 4 + 4;
    return number->json_end - number->json_begin;
}

static void
append_bytes(Text *text, const Py_buffer *bytes)
{
    memcpy(text->json + text->json_length, bytes->buf, (size_t)bytes->len);
    text->json_length += (size_t)bytes->len;
}

static size_t
parts_length(const Parts *parts)
{
    return (size_t)(parts->seed.len + parts->head.len + parts->middle.len + parts->tail.len);
}

/* Lay out the message of `nonce`, padded for SHA3-512. The buffers of `text` hold text_room(parts) bytes each. */
static void
text_lay_out(Text *text, const Parts *parts, uint64_t nonce)
{
    text->json_length = 0;
    text->seed_length = (size_t)parts->seed.len;
    memcpy(text->message, parts->seed.buf, text->seed_length);
    append_bytes(text, &parts->head);
    append_number(text, &text->numbers[0], nonce);
    text->number_count = 1;
    if (parts->middle.buf != NULL) {
        append_bytes(text, &parts->middle);
        append_number(text, &text->numbers[1], nonce >> 1);
        text->number_count = 2;
    }
    append_bytes(text, &parts->tail);

    const size_t groups = (text->json_length + 2) / 3;
    for (size_t group = 0; group < groups; group++)
        text_encode_group(text, group);
    text->length = text->seed_length + 4 * groups;
    text->padded_length = (text->length / RATE + 1) * RATE;
    memset(text->message + text->length, 0, text->padded_length - text->length);
    text->message[text->length] = SHA3_PADDING;
    text->message[text->padded_length - 1] |= 0x80;
}

static size_t
text_room(const Parts *parts)
{
    return (parts_length(parts) + 2 * 20 + 3) / 3 * 4 + (size_t)parts->seed.len + 2 * RATE;
}

/* The first nonce after `nonce` at which a number of the text gains a digit. */
static uint64_t
next_layout(uint64_t nonce)
{
    uint64_t power = 10;

    while (power <= nonce / 2)
        power *= 10;
    /* power > nonce / 2 and power <= 10 * (nonce / 2): the candidates are power itself and its double */
    return power > nonce ? power : 2 * power;
}

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)

#define LANES 1
#define KERNEL_NAME(name) JOIN(name, scalar)
#define KERNEL_TARGET
#include "_pow_lanes.h"

#if defined(__x86_64__)
#define LANES 4
#define KERNEL_NAME(name) JOIN(name, avx2)
#define KERNEL_TARGET __attribute__((target("avx2")))
#include "_pow_lanes.h"

#define LANES 8
#define KERNEL_NAME(name) JOIN(name, avx512)
#define KERNEL_TARGET __attribute__((target("avx512f")))
#include "_pow_lanes.h"

static int has_avx2(void) { return __builtin_cpu_supports("avx2"); }
static int has_avx512(void) { return __builtin_cpu_supports("avx512f"); }
#endif

static int always(void) { return 1; }

typedef struct {
    const char *name;
    int (*available)(void);
    int64_t (*sha3)(Text *, uint64_t, uint64_t, uint64_t, void *, const volatile unsigned char *);
    int64_t (*fnv)(Text *, uint64_t, uint64_t, uint32_t, void *, const volatile unsigned char *);
} Variant;

static const Variant VARIANTS[] = { /* fastest first */
#if defined(__x86_64__)
    {"avx512", has_avx512, search_sha3_avx512, search_fnv_avx512},
    {"avx2", has_avx2, search_sha3_avx2, search_fnv_avx2},
#endif
    {"scalar", always, search_sha3_scalar, search_fnv_scalar},
};
#define VARIANT_COUNT (sizeof VARIANTS / sizeof VARIANTS[0])

/* The variant of that name, the fastest one for NULL; NULL with ValueError set where this processor has none. */
static const Variant *
find_variant(const char *name)
{
    for (size_t i = 0; i < VARIANT_COUNT; i++) {
        if (VARIANTS[i].available() && (name == NULL || strcmp(name, VARIANTS[i].name) == 0))
            return &VARIANTS[i];
    }
    PyErr_Format(PyExc_ValueError, "this processor has no variant %s", name);
    return NULL;
}

/* Search range by range of one layout; NOT_FOUND, CANCELLED or the nonce. */
static int64_t
search_range(const Variant *variant, int fnv, const Parts *parts, uint64_t first, uint64_t stop, uint64_t limit,
             Text *text, void *memory, const volatile unsigned char *cancel)
{
    int64_t found = NOT_FOUND;

    while (first < stop && found == NOT_FOUND) {
        const uint64_t change = next_layout(first);
        const uint64_t end = change < stop ? change : stop;
        text_lay_out(text, parts, first);
        if (fnv)
            found = variant->fnv(text, first, end, (uint32_t)limit, memory, cancel);
        else
            found = variant->sha3(text, first, end, limit, memory, cancel);
        first = end;
    }
    return found;
}

/* Why the arguments cannot be searched, NULL if they can. */
static const char *
complaint(const char *algorithm, const Parts *parts, uint64_t stop, const Py_buffer *cancel)
{
    if (strcmp(algorithm, "sha3-512") != 0 && strcmp(algorithm, "fnv1a-32") != 0)
        return "algorithm must be sha3-512 or fnv1a-32";
    if (parts_length(parts) > MAX_TEXT)
        return "seed and text are too long";
    if (parts->middle.buf != NULL && parts->middle.len < 2)
        return "the two numbers must not share a base64 group: middle needs 2 bytes or more";
    if (stop > MAX_NONCE)
        return "stop must not be over 10^18";
    if (cancel->len < 1)
        return "cancel must hold one byte";
    return NULL;
}

static PyObject *
run_search(const Variant *variant, int fnv, const Parts *parts, uint64_t first, uint64_t stop, uint64_t limit,
           const volatile unsigned char *cancel)
{
    const size_t room = text_room(parts);
    const size_t lanes_room = room * MAX_LANES * sizeof(uint32_t); /* more than either kernel needs */
    Text text = {0};
    int64_t found;
    char *const block = malloc(2 * room + lanes_room + VECTOR_ALIGNMENT);

    if (block == NULL)
        return PyErr_NoMemory();
    void *const memory = (void *)(((uintptr_t)block + VECTOR_ALIGNMENT - 1) / VECTOR_ALIGNMENT * VECTOR_ALIGNMENT);
    text.message = (unsigned char *)memory + lanes_room;
    text.json = text.message + room;
    Py_BEGIN_ALLOW_THREADS
    found = search_range(variant, fnv, parts, first, stop, limit, &text, memory, cancel);
    Py_END_ALLOW_THREADS
    free(block);
    if (found < 0)
        Py_RETURN_NONE;
    return PyLong_FromLongLong(found);
}

static PyObject *
pow_search(PyObject *module, PyObject *args)
{
    const char *algorithm, *name = NULL;
    Parts parts = {0};
    Py_buffer cancel;
    unsigned long long first, stop, limit;
    PyObject *result = NULL;

    (void)module;
    if (!PyArg_ParseTuple(args, "sy*y*z*y*KKKw*|z:search", &algorithm, &parts.seed, &parts.head, &parts.middle,
                          &parts.tail, &first, &stop, &limit, &cancel, &name))
        return NULL;
    const char *const wrong = complaint(algorithm, &parts, stop, &cancel);
    const Variant *const variant = wrong == NULL ? find_variant(name) : NULL;
    if (wrong != NULL)
        PyErr_SetString(PyExc_ValueError, wrong);
    else if (variant != NULL)
        result = run_search(variant, algorithm[0] == 'f', &parts, first, stop, limit, cancel.buf);
    PyBuffer_Release(&parts.seed);
    PyBuffer_Release(&parts.head);
    if (parts.middle.obj != NULL)
        PyBuffer_Release(&parts.middle);
    PyBuffer_Release(&parts.tail);
    PyBuffer_Release(&cancel);
    return result;
}

static PyObject *
pow_variants(PyObject *module, PyObject *unused)
{
    PyObject *const names = PyList_New(0);

    (void)module;
    (void)unused;
    for (size_t i = 0; names != NULL && i < VARIANT_COUNT; i++) {
        PyObject *const name = VARIANTS[i].available() ? PyUnicode_FromString(VARIANTS[i].name) : NULL;
        const int failed = VARIANTS[i].available() && (name == NULL || PyList_Append(names, name) < 0);
        Py_XDECREF(name);
        if (failed) {
            Py_DECREF(names);
            return NULL;
        }
    }
    return names;
}

static PyMethodDef METHODS[] = {
    {"search", pow_search, METH_VARARGS,
     "search(algorithm, seed, head, middle, tail, start, stop, limit, cancel, variant=None)\n--\n\n"
     "Give the first nonce in [start, stop) whose hash is at most limit, None when there is none or cancel[0] is set."},
    {"variants", pow_variants, METH_NOARGS,
     "variants()\n--\n\nGive the names of the variants that this processor can run, fastest first."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef MODULE = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_pow",
    .m_doc = "The proof-of-work search in machine code; see proof_of_work.py.",
    .m_methods = METHODS,
};

PyMODINIT_FUNC
PyInit__pow(void)
{
    return PyModuleDef_Init(&MODULE);
}
