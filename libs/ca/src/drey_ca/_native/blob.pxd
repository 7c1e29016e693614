# Heap values: reference-counted buffers. The count changes only under the table's mutex, so that
# a drain can hold a value while the next one already replaces it in its slot.

from libc.stdint cimport uint32_t
from libc.stdlib cimport free, malloc


cdef struct Blob:
    uint32_t references
    uint32_t size


cdef inline Blob* blob_new(size_t size) noexcept nogil:
    """A buffer of `size` bytes with one reference, or NULL."""
    cdef Blob* blob
    if size > 0xFFFF_FFFFu - sizeof(Blob):
        return NULL
    blob = <Blob*>malloc(sizeof(Blob) + size)
    if blob != NULL:
        blob.references = 1
        blob.size = <uint32_t>size
    return blob


cdef inline char* blob_data(Blob* blob) noexcept nogil:
    return <char*>blob + sizeof(Blob)


cdef inline void blob_release(Blob* blob) noexcept nogil:
    """Give up one reference; NULL is fine. Call under the mutex."""
    if blob != NULL:
        blob.references -= 1
        if blob.references == 0:
            free(blob)
