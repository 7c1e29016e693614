# What is used of libca, libCom's time stamps and POSIX. The functions come from the one libca that
# `epicscorelibs` brings, loaded by the package's __init__; nothing is linked.

from libc.stdint cimport int64_t, uint32_t

cdef extern from "cadef.h" nogil:
    struct oldChannelNotify:
        pass
    ctypedef oldChannelNotify* chid
    struct oldSubscription:
        pass
    ctypedef oldSubscription* evid

    struct connection_handler_args:
        chid chid
        long op

    ctypedef struct ca_access_rights:
        unsigned read_access
        unsigned write_access

    struct access_rights_handler_args:
        chid chid
        ca_access_rights ar

    struct event_handler_args:
        void* usr
        chid chid
        long type
        long count
        const void* dbr
        int status

    struct exception_handler_args:
        void* usr
        chid chid
        long stat
        long op
        const char* ctx

    ctypedef void (*caCh)(connection_handler_args) noexcept
    ctypedef void (*caArh)(access_rights_handler_args) noexcept
    ctypedef void (*caEventCallBackFunc)(event_handler_args) noexcept
    ctypedef void (*caExceptionHandler)(exception_handler_args) noexcept

    enum ca_preemptive_callback_select:
        ca_enable_preemptive_callback

    enum:
        CA_OP_CONN_UP
        DBE_VALUE
        DBE_ALARM
        DBE_PROPERTY
        ECA_NORMAL
        ECA_TIMEOUT
        ECA_DISCONN
        ECA_CHANDESTROY
        ECA_NORDACCESS
        ECA_NOWTACCESS
        ECA_BADTYPE
        ECA_BADCOUNT
        ECA_ALLOCMEM
        ECA_DBLCHNL
        ECA_UNRESPTMO

    int ca_context_create(ca_preemptive_callback_select)
    void ca_context_destroy()
    int ca_create_channel(const char*, caCh, void*, unsigned, chid*)
    int ca_replace_access_rights_event(chid, caArh)
    int ca_add_exception_event(caExceptionHandler, void*)
    int ca_clear_channel(chid)
    int ca_create_subscription(
        long, unsigned long, chid, long, caEventCallBackFunc, void*, evid*)
    int ca_clear_subscription(evid)
    int ca_array_get_callback(long, unsigned long, chid, caEventCallBackFunc, void*)
    int ca_array_put(long, unsigned long, chid, const void*)
    int ca_array_put_callback(
        long, unsigned long, chid, const void*, caEventCallBackFunc, void*)
    int ca_flush_io()
    void* ca_puser(chid)
    short ca_field_type(chid)
    unsigned long ca_element_count(chid)
    unsigned ca_read_access(chid)
    unsigned ca_write_access(chid)
    unsigned ca_get_host_name(chid, char*, unsigned)

cdef extern from *:
    """
    #include "epicsThread.h"
    /* Declared in cacIO.h, for C++: what libca's own threads set, which it never makes wait. */
    extern epicsThreadPrivateId caClientCallbackThreadId;
    """
    ctypedef void* epicsThreadPrivateId
    epicsThreadPrivateId caClientCallbackThreadId
    void epicsThreadPrivateSet(epicsThreadPrivateId, void*) nogil

cdef extern from "db_access.h" nogil:
    struct dbr_ctrl_short:
        char units[8]
        short upper_disp_limit
    struct dbr_ctrl_float:
        short precision
        char units[8]
        float upper_disp_limit
    struct dbr_ctrl_char:
        char units[8]
        unsigned char upper_disp_limit
    struct dbr_ctrl_long:
        char units[8]
        int upper_disp_limit
    struct dbr_ctrl_double:
        short precision
        char units[8]
        double upper_disp_limit
    struct dbr_ctrl_enum:
        short no_str
        char strs[16][26]

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    int pthread_mutex_init(pthread_mutex_t*, void*)
    int pthread_mutex_destroy(pthread_mutex_t*)
    int pthread_mutex_lock(pthread_mutex_t*)
    int pthread_mutex_unlock(pthread_mutex_t*)

cdef extern from "<time.h>" nogil:
    ctypedef long time_t
    struct timespec:
        time_t tv_sec
        long tv_nsec
    enum:
        CLOCK_REALTIME
        CLOCK_MONOTONIC
    int clock_gettime(int, timespec*)

cdef extern from "<poll.h>" nogil:
    struct pollfd:
        int fd
        short events
        short revents
    enum:
        POLLIN
    int poll(pollfd*, unsigned long, int)

cdef extern from "<unistd.h>" nogil:
    ssize_t read(int, void*, size_t)
    ssize_t write(int, const void*, size_t)


# Basic DBR types and the families built on them.
cdef enum:
    DBR_STRING = 0
    DBR_SHORT = 1
    DBR_FLOAT = 2
    DBR_ENUM = 3
    DBR_CHAR = 4
    DBR_LONG = 5
    DBR_DOUBLE = 6
    DBR_TIME = 14
    DBR_CTRL = 28


cdef inline int64_t now() noexcept nogil:
    """Nanoseconds since 1970 UTC by this host's clock, which may be set back."""
    cdef timespec t
    clock_gettime(CLOCK_REALTIME, &t)
    return <int64_t>t.tv_sec * 1_000_000_000 + t.tv_nsec


cdef inline int64_t ticks() noexcept nogil:
    """Nanoseconds of a clock that only goes on: for intervals."""
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC, &t)
    return <int64_t>t.tv_sec * 1_000_000_000 + t.tv_nsec


cdef inline uint32_t element_size(int basic) noexcept nogil:
    """Bytes of one element of a basic DBR type."""
    if basic == DBR_DOUBLE:
        return 8
    if basic == DBR_FLOAT or basic == DBR_LONG:
        return 4
    if basic == DBR_CHAR:
        return 1
    if basic == DBR_STRING:
        return 40
    return 2


cdef inline uint32_t value_offset(int basic) noexcept nogil:
    """Where the first element lies in `dbr_time_*` of a basic type."""
    if basic == DBR_DOUBLE:
        return 16
    if basic == DBR_CHAR:
        return 15
    if basic == DBR_SHORT or basic == DBR_ENUM:
        return 14
    return 12
