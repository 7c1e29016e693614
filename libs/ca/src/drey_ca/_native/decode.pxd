# `dbr_time_*` and `dbr_ctrl_*` structures to what slots and rows keep, bit for bit.

from libc.math cimport NAN
from libc.stdint cimport (
    int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t)
from libc.stdlib cimport free
from libc.string cimport memchr, memcmp, memcpy, memset

from drey_ca._native.blob cimport Blob, blob_data, blob_new, blob_release
from drey_ca._native.libca cimport *

# Numbers of `drey_core.values.Kind`.
cdef enum:
    KIND_NONE = 0
    KIND_INT16 = 3
    KIND_INT32 = 4
    KIND_UINT8 = 6
    KIND_FLOAT32 = 10
    KIND_FLOAT64 = 11
    KIND_ENUM = 12
    KIND_STRING = 13
    KIND_ARRAY = 0x40

cdef enum:
    EPICS_EPOCH_SECONDS = 631152000  # 1990-01-01 UTC


cdef struct Value:
    uint64_t data
    int64_t source_time
    int64_t receive_time
    Blob* blob
    uint16_t status
    uint8_t kind
    uint8_t severity


cdef struct Meta:
    double limits[8]  # in the order of `dbr_ctrl_double`
    Blob* labels  # 26 bytes each
    char units[8]
    int16_t precision


cdef inline uint8_t kind_of(int basic) noexcept nogil:
    """Our kind of one element of a basic DBR type."""
    if basic == DBR_DOUBLE:
        return KIND_FLOAT64
    if basic == DBR_FLOAT:
        return KIND_FLOAT32
    if basic == DBR_LONG:
        return KIND_INT32
    if basic == DBR_SHORT:
        return KIND_INT16
    if basic == DBR_CHAR:
        return KIND_UINT8
    if basic == DBR_ENUM:
        return KIND_ENUM
    if basic == DBR_STRING:
        return KIND_STRING
    return KIND_NONE


cdef inline uint32_t text_length(const char* text, uint32_t limit) noexcept nogil:
    """Bytes before the first NUL, at most `limit`: the text need not be terminated."""
    cdef const void* end = memchr(text, 0, limit)
    return limit if end == NULL else <uint32_t>(<const char*>end - text)


cdef inline uint64_t scalar(int basic, const char* at) noexcept nogil:
    """One number as the bits of a `data` cell: sign for signed, zero for the rest."""
    cdef int16_t i2
    cdef uint16_t u2
    cdef int32_t i4
    cdef uint32_t u4
    cdef uint64_t u8
    if basic == DBR_DOUBLE:
        memcpy(&u8, at, 8)
        return u8
    if basic == DBR_FLOAT:
        memcpy(&u4, at, 4)
        return u4
    if basic == DBR_LONG:
        memcpy(&i4, at, 4)
        return <uint64_t><int64_t>i4
    if basic == DBR_SHORT:
        memcpy(&i2, at, 2)
        return <uint64_t><int64_t>i2
    if basic == DBR_ENUM:
        memcpy(&u2, at, 2)
        return u2
    return (<const uint8_t*>at)[0]


cdef inline Blob* text_blob(const char* at, uint32_t limit) noexcept nogil:
    cdef uint32_t size = text_length(at, limit)
    cdef Blob* blob = blob_new(size)
    if blob != NULL:
        memcpy(blob_data(blob), at, size)
    return blob


cdef inline Blob* strings_blob(const char* at, uint32_t count) noexcept nogil:
    """`count` strings of 40 bytes as `drey_core.values.pack_strings` lays them out."""
    cdef size_t total = 4 + 4 * <size_t>count
    cdef uint32_t i, size
    cdef Blob* blob
    cdef char* heads
    cdef char* body
    for i in range(count):
        total += text_length(at + 40 * <size_t>i, 40)
    blob = blob_new(total)
    if blob == NULL:
        return NULL
    heads = blob_data(blob)
    body = heads + 4 + 4 * <size_t>count
    memcpy(heads, &count, 4)
    for i in range(count):
        size = text_length(at + 40 * <size_t>i, 40)
        memcpy(heads + 4 + 4 * <size_t>i, &size, 4)
        memcpy(body, at + 40 * <size_t>i, size)
        body += size
    return blob


cdef inline bint decode_time(
    Value* out, const char* dbr, int basic, uint32_t count, bint long_string, bint array
) noexcept nogil:
    """Decode a `dbr_time_*` structure, receive time aside. False: no memory; `out` is as it was.

    `count` must be 1 where neither `long_string` nor `array` is set.
    """
    cdef int16_t head[2]
    cdef uint32_t stamp[2]
    cdef const char* body = dbr + value_offset(basic)
    cdef Blob* blob = NULL
    cdef uint64_t data = 0
    cdef uint8_t kind = kind_of(basic)
    if long_string:
        blob = text_blob(body, count)
        kind = KIND_STRING
    elif basic == DBR_STRING and array:
        blob = strings_blob(body, count)
        kind = KIND_STRING | KIND_ARRAY
    elif basic == DBR_STRING:
        blob = text_blob(body, 40)
    elif array:
        blob = blob_new(<size_t>count * element_size(basic))
        kind = kind | KIND_ARRAY
        if blob != NULL:
            memcpy(blob_data(blob), body, <size_t>count * element_size(basic))
    else:
        data = scalar(basic, body)
    if blob == NULL and (kind == KIND_STRING or kind & KIND_ARRAY):
        return False
    memcpy(head, dbr, 4)
    memcpy(stamp, dbr + 4, 8)
    out.data = data
    out.blob = blob
    out.kind = kind
    out.status = <uint16_t>head[0]
    out.severity = <uint8_t>head[1] if 0 <= head[1] <= 3 else 3
    out.source_time = (
        (<int64_t>EPICS_EPOCH_SECONDS + <int64_t>stamp[0]) * 1_000_000_000 + <int64_t>stamp[1])
    return True


cdef inline bint decode_ctrl(Meta* out, const char* dbr, int basic) noexcept nogil:
    """Decode a `dbr_ctrl_*` structure of a type other than string. False: no memory."""
    cdef int i
    cdef short states
    cdef const dbr_ctrl_double* f8 = <const dbr_ctrl_double*>dbr
    cdef const dbr_ctrl_float* f4 = <const dbr_ctrl_float*>dbr
    cdef const dbr_ctrl_long* i4 = <const dbr_ctrl_long*>dbr
    cdef const dbr_ctrl_short* i2 = <const dbr_ctrl_short*>dbr
    cdef const dbr_ctrl_char* u1 = <const dbr_ctrl_char*>dbr
    cdef const dbr_ctrl_enum* e = <const dbr_ctrl_enum*>dbr
    memset(out, 0, sizeof(Meta))
    out.precision = -1
    for i in range(8):
        out.limits[i] = NAN
    if basic == DBR_ENUM:
        states = e.no_str
        states = 0 if states < 0 else 16 if states > 16 else states
        out.labels = blob_new(26 * <size_t>states)
        if out.labels == NULL:
            return False
        memcpy(blob_data(out.labels), &e.strs[0][0], 26 * <size_t>states)
        return True
    for i in range(8):
        if basic == DBR_DOUBLE:
            out.limits[i] = (&f8.upper_disp_limit)[i]
        elif basic == DBR_FLOAT:
            out.limits[i] = (&f4.upper_disp_limit)[i]
        elif basic == DBR_LONG:
            out.limits[i] = (&i4.upper_disp_limit)[i]
        elif basic == DBR_SHORT:
            out.limits[i] = (&i2.upper_disp_limit)[i]
        else:
            out.limits[i] = (&u1.upper_disp_limit)[i]
    if basic == DBR_DOUBLE:
        out.precision = f8.precision
        memcpy(out.units, f8.units, 8)
    elif basic == DBR_FLOAT:
        out.precision = f4.precision
        memcpy(out.units, f4.units, 8)
    elif basic == DBR_LONG:
        memcpy(out.units, i4.units, 8)
    elif basic == DBR_SHORT:
        memcpy(out.units, i2.units, 8)
    else:
        memcpy(out.units, u1.units, 8)
    i = text_length(out.units, 8)
    memset(out.units + i, 0, 8 - i)
    return True


cdef inline bint same_meta(const Meta* a, const Meta* b) noexcept nogil:
    if (memcmp(a.limits, b.limits, sizeof(a.limits)) or memcmp(a.units, b.units, 8)
            or a.precision != b.precision or (a.labels == NULL) != (b.labels == NULL)):
        return False
    if a.labels == NULL:
        return True
    return a.labels.size == b.labels.size and memcmp(
        blob_data(<Blob*>a.labels), blob_data(<Blob*>b.labels), a.labels.size) == 0


cdef inline void free_meta(Meta* meta) noexcept nogil:
    """Call under the mutex."""
    if meta != NULL:
        blob_release(meta.labels)
        free(meta)
