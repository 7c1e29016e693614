# The structures of a table. All of it is guarded by `Shared.mutex`, except what says otherwise.

from libc.stdint cimport (
    int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t)
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memmove, memset, strncmp, strncpy

from drey_ca._native.blob cimport Blob, blob_release
from drey_ca._native.decode cimport Meta, Value, free_meta
from drey_ca._native.libca cimport (
    chid, evid, pthread_mutex_lock, pthread_mutex_t, pthread_mutex_unlock, ticks, write)

# Numbers of `drey_core.values.State`.
cdef enum:
    NEVER_CONNECTED = 1
    DISCONNECTED = 2
    CONNECTED = 3

cdef enum:
    READ_RIGHT = 1
    WRITE_RIGHT = 2


cdef struct Slot:
    Value value
    int64_t state_time
    int64_t unheard_since  # when its subscription was last asked for, in ticks; 0: it has answered
    chid channel  # made and cleared by the CA thread only
    evid value_subscription  # as above, like the next
    evid property_subscription
    Meta* meta
    uint64_t merged
    uint32_t generation  # of the slot's user: what callbacks of the channel carry
    uint32_t subject  # of the channel's type: what callbacks of subscriptions carry
    uint32_t value_subject  # that for which each subscription was made
    uint32_t property_subject
    uint32_t count
    int32_t host
    uint32_t unanswered  # writes of ended operations whose answers may still come
    int64_t doubt  # what `doubt_host` must have taken before a write without an answer is over
    int32_t doubt_host
    int16_t native  # basic DBR type, -1 while never connected
    uint8_t state
    uint8_t rights
    bint used
    bint dying  # removed, its channel not yet cleared
    bint dollar  # the name ends in $
    bint long_string
    bint wanted  # subscribed by the user
    bint dirty
    bint listed  # in the list of dirty slots
    bint unseen  # has a value that no drain has given
    bint info_dirty
    bint info_listed
    bint attended  # in the list of slots for the CA thread
    bint fed  # an event has come since the channel has this type
    bint bygone  # its value is of an earlier connection
    bint unlabeled  # an enum whose metadata has not come since it connected
    uint8_t asked  # a bit for each of the asks below that waits for its answer, counted at `asked_host`
    int32_t asked_host


cdef struct Indices:
    # A list that never grows in a callback: its room is that of the table.
    int32_t* items
    int64_t size


cdef struct Queue:
    # First in, first out; grown by whoever pushes.
    int32_t* items
    int64_t head
    int64_t size
    int64_t room


# What is asked of a server when a channel connects, in this order of urgency.
cdef enum:
    FIRST_VALUE  # a get, where subscriptions will take long
    METADATA  # a control get: of channels that are not subscribed, and likewise
    EVENTS  # the subscription; its first event is the answer
    PROPERTIES  # the subscription to changes of metadata, likewise
    ASKS


cdef struct Host:
    char name[64]
    Queue queues[ASKS]  # slots that wait for their turn
    int32_t under_way  # asked and not answered
    int64_t gained  # when a channel last connected, in ticks
    int32_t rush  # how many connected one after the other, QUIET apart at most
    int64_t holding_since  # when the first subscription began to wait for that to end, or 0
    int32_t properties  # PROPERTIES among what is under way
    int64_t spell  # when asking for them began, after the last rest; 0: it is over
    int64_t spell_left  # how many more may be asked for in it
    int64_t spell_end  # when the last of them was answered
    int64_t rested  # when the next spell may begin
    # Request bytes of operations that libca was given, ever, and those of them that the server has taken
    # for sure: it answered what was asked after them.
    int64_t handed
    int64_t taken
    int64_t last  # when it was last given something, in ticks
    bint waiting  # an operation found no room, and all wait until so much is under way at most:
    int64_t enough
    bint doubted  # whether all was taken is to be found out, by a fence
    bint fencing  # a fence is under way: a get that is answered when what was handed before was taken
    int64_t fence  # `handed` when it was sent
    uint32_t fence_number
    int32_t reader  # a slot that may be able to ask it


cdef enum:
    HOST_WINDOW = 1000  # of them at a time, so that urgent ones never wait behind many others
    # Subscriptions at a time while bulk requests are under way: the 80,000th of one circuit costs an
    # IOC 0.1 ms, and what is asked after them waits.
    BUSY_WINDOW = 50
    # While more than RUSH channels connect, subscriptions wait until none has for QUIET, and for
    # LONGEST at most: in the one circuit what connects later would stand behind them.
    RUSH = 200
    QUIET = 100_000_000  # ns
    LONGEST = 1_000_000_000
    # Of these subscriptions, which nobody waits for, so many are asked for at a time, and then none for
    # REST times as long as they took: all at once they would keep an IOC busy for seconds, which is
    # late with values then.
    SPELL = 250
    REST = 2
    # What a server has not answered for so long takes no room in its window any more: others may be
    # answered where one hangs.
    LATE = 3_000_000_000


cdef struct Lane:
    # What one operation sends to one server: at most a window of it at a time.
    int32_t host
    Queue queue
    int64_t last  # when something was last sent or answered, in ticks
    int32_t recent  # puts sent in this lap and not answered
    bint bursting  # more wait for some of them to be answered
    uint32_t lap


cdef enum Phase:
    WAITING  # for its channel to connect
    QUEUED
    SENT
    SETTLED


cdef enum Purpose:
    READ
    WRITE_AND_WAIT
    WRITE_ONLY


cdef struct Request:
    # One row of an operation.
    Value value  # what a read gave
    uint64_t cell  # a scalar to write
    const char* payload  # anything else to write, in one of the operation's chunks
    int64_t mark  # `handed` of its server when it had been sent
    int32_t slot
    uint32_t generation
    int32_t code  # ECA, or -1 while not settled
    int32_t lane
    uint32_t lap
    uint32_t count
    uint32_t subject  # of the slot when the value to write was encoded
    int64_t since  # and when its channel had connected
    int16_t basic
    uint8_t phase
    bint array
    bint long_string


cdef struct Chunk:
    # What an operation writes, from here on in memory: its own until libca has copied it.
    Chunk* next


cdef struct Operation:
    Chunk* chunks
    Request* rows
    int64_t size
    int64_t left  # rows not settled
    int64_t waiting  # rows in phase WAITING
    Lane* lanes
    int32_t lane_count
    uint32_t number
    int32_t asked  # basic DBR type wanted from a read, -1: the native one
    uint8_t purpose
    bint pump  # the CA thread has something to send
    bint closed  # nobody waits for it any more


cdef enum:
    OPERATIONS = 1024  # at one time, at most
    DOUBLES = 64  # names served twice, between two looks
    DOUBLE_TEXT = 256

cdef enum CommandKind:
    ADD
    REMOVE


cdef struct Command:
    Command* next
    int32_t* slots
    int64_t size
    const char* names  # NUL-terminated, one after the other; kept alive by the table
    int64_t number
    uint8_t kind


cdef struct Shared:
    pthread_mutex_t mutex
    Slot* slots
    int64_t capacity
    Indices dirty
    Indices info_dirty
    Indices attend
    Queue free
    Host* hosts
    int32_t host_count
    Operation* operations[OPERATIONS]
    Operation** discarded  # for the CA thread to free
    int64_t discarded_count
    int64_t discarded_room
    Command* first
    Command* last
    int64_t commands_done
    int32_t add_failure  # the first ECA code with which a channel could not be made
    int64_t heap_cursor
    int32_t last_host
    uint32_t operation_number
    int32_t turn  # which operation is looked at first
    bint pump_all  # a server that operations wait for has room
    int32_t operations_open
    uint8_t number  # of this table in the process
    int32_t start_code  # ECA code of making the context, -1 before
    # What the event loop is told by a wake-up.
    int64_t connection_changes
    bint operation_news
    bint loop_told
    bint thread_told
    bint closing
    bint closed
    int loop_fd  # written to wake the loop
    int thread_fd  # written to wake the CA thread
    bint pausing  # something waits for time to pass; CA thread only
    bint holding  # subscriptions of a server do; likewise
    # Counters.
    int64_t used
    int64_t connected
    int64_t wanted
    uint64_t updates
    uint64_t merged
    uint64_t bad_events
    uint64_t late
    uint64_t exceptions
    int32_t last_exception
    char last_context[160]
    char doubles[DOUBLES][DOUBLE_TEXT]  # libca's words on names that two servers have
    int32_t double_count
    bint naming  # the CA thread has to look for names of servers that had only an address


cdef inline void lock(Shared* t) noexcept nogil:
    pthread_mutex_lock(&t.mutex)


cdef inline void unlock(Shared* t) noexcept nogil:
    pthread_mutex_unlock(&t.mutex)


cdef inline void ring(int fd) noexcept nogil:
    """Make an eventfd readable. It cannot fail but when the counter is full: readable already."""
    cdef uint64_t one = 1
    write(fd, &one, 8)


cdef inline void tell_loop(Shared* t) noexcept nogil:
    if not t.loop_told:
        t.loop_told = True
        ring(t.loop_fd)


cdef inline void tell_thread(Shared* t) noexcept nogil:
    if not t.thread_told:
        t.thread_told = True
        ring(t.thread_fd)


cdef inline void tell_news(Shared* t) noexcept nogil:
    t.operation_news = True
    tell_loop(t)


cdef inline int64_t append(Indices* list, int32_t index) noexcept nogil:
    """The new size. There is room: callers see to it that no index is there twice."""
    list.items[list.size] = index
    list.size += 1
    return list.size


cdef inline void mark_dirty(Shared* t, int32_t index) noexcept nogil:
    cdef Slot* slot = &t.slots[index]
    slot.dirty = True
    if not slot.listed:
        slot.listed = True
        if append(&t.dirty, index) == 1:
            tell_loop(t)


cdef inline void mark_info(Shared* t, int32_t index) noexcept nogil:
    cdef Slot* slot = &t.slots[index]
    slot.info_dirty = True
    if not slot.info_listed:
        slot.info_listed = True
        if append(&t.info_dirty, index) == 1:
            tell_loop(t)


cdef inline void attend(Shared* t, int32_t index) noexcept nogil:
    """Have the CA thread look at a slot."""
    cdef Slot* slot = &t.slots[index]
    if not slot.attended:
        slot.attended = True
        append(&t.attend, index)
        tell_thread(t)


cdef inline void drop_first(Indices* list, int64_t count) noexcept nogil:
    list.size -= count
    if count and list.size:
        memmove(list.items, list.items + count, 4 * list.size)


cdef inline bint push(Queue* queue, int32_t item) noexcept nogil:
    """False: no memory."""
    cdef int64_t room
    cdef int32_t* grown
    if queue.head == queue.size:
        queue.head = queue.size = 0
    if queue.size == queue.room:
        if queue.head > queue.room // 2:
            memcpy(queue.items, queue.items + queue.head, 4 * (queue.size - queue.head))
            queue.size -= queue.head
            queue.head = 0
        else:
            room = 64 if queue.room == 0 else 2 * queue.room
            grown = <int32_t*>realloc(queue.items, 4 * room)
            if grown == NULL:
                return False
            queue.items, queue.room = grown, room
    queue.items[queue.size] = item
    queue.size += 1
    return True


cdef inline int32_t pop(Queue* queue) noexcept nogil:
    """The oldest, or -1."""
    if queue.head == queue.size:
        return -1
    queue.head += 1
    return queue.items[queue.head - 1]


cdef inline bint grow(Shared* t, int64_t capacity) noexcept nogil:
    """Room for `capacity` slots. False: no memory; what there was stays usable."""
    cdef int64_t i
    cdef void* grown
    cdef int32_t** lists[3]
    lists[0], lists[1], lists[2] = &t.dirty.items, &t.info_dirty.items, &t.attend.items
    for i in range(3):
        grown = realloc(lists[i][0], 4 * capacity)
        if grown == NULL:
            return False
        lists[i][0] = <int32_t*>grown
    grown = realloc(t.slots, sizeof(Slot) * capacity)
    if grown == NULL:
        return False
    t.slots = <Slot*>grown
    memset(&t.slots[t.capacity], 0, sizeof(Slot) * (capacity - t.capacity))
    for i in range(t.capacity, capacity):
        if not push(&t.free, <int32_t>i):
            return False
        t.capacity = i + 1
    return True


# What libca hands back to a callback, in one pointer: the table (8 bits), a number that tells
# this use of the index from earlier ones (24), and the index of a slot or row (32).

cdef inline void* token_of(Shared* t, int64_t index, uint32_t number) noexcept nogil:
    return <void*>(<uint64_t>t.number << 56 | <uint64_t>(number & 0xFF_FFFFu) << 32
                   | <uint64_t><uint32_t>index)


cdef inline int64_t index_of(void* token) noexcept nogil:
    return <int64_t>(<uint64_t>token & 0xFFFF_FFFFu)


cdef inline uint32_t number_of(void* token) noexcept nogil:
    return <uint32_t>(<uint64_t>token >> 32) & 0xFF_FFFFu


cdef inline Slot* live(Shared* t, void* token, bint by_subject) noexcept nogil:
    """The slot that a callback speaks of, or NULL if it is another's by now."""
    cdef uint32_t number
    cdef Slot* slot
    if index_of(token) >= t.capacity:
        return NULL
    slot = &t.slots[index_of(token)]
    number = slot.subject if by_subject else slot.generation
    if not slot.used or number_of(token) != (number & 0xFF_FFFFu):
        return NULL
    return slot


cdef inline int32_t host_of(Shared* t, const char* name) noexcept nogil:
    """The number of a server's name; the last one where memory for a new one lacks."""
    cdef int32_t i
    cdef Host* grown
    if t.host_count and strncmp(t.hosts[t.last_host].name, name, 63) == 0:
        return t.last_host
    for i in range(t.host_count - 1, -1, -1):
        if strncmp(t.hosts[i].name, name, 63) == 0:
            t.last_host = i
            return i
    grown = <Host*>realloc(t.hosts, sizeof(Host) * (t.host_count + 1))
    if grown == NULL:
        return t.host_count - 1
    t.hosts = grown
    memset(&grown[t.host_count], 0, sizeof(Host))
    grown[t.host_count].reader = -1
    strncpy(grown[t.host_count].name, name, 63)
    t.host_count += 1
    return t.host_count - 1


cdef inline void forget_value(Shared* t, Slot* slot) noexcept nogil:
    """No value and no metadata any more: what comes next is of another type."""
    blob_release(slot.value.blob)
    memset(&slot.value, 0, sizeof(Value))
    slot.unseen = slot.fed = slot.bygone = False
    free_meta(slot.meta)
    slot.meta = NULL


cdef inline int64_t queued(const Queue* queue) noexcept nogil:
    return queue.size - queue.head


cdef inline void answered(Shared* t, Slot* slot, int ask) noexcept nogil:
    """What was asked for a slot was answered, or never will be."""
    cdef Host* host
    cdef int i
    if not slot.asked & (1 << ask):
        return
    slot.asked &= ~(1 << ask)
    host = &t.hosts[slot.asked_host]
    host.under_way -= 1
    if ask == PROPERTIES:
        host.properties -= 1
        host.spell_end = ticks()
    if host.under_way == HOST_WINDOW // 2 or host.under_way == BUSY_WINDOW // 2 or (
            host.under_way == 0):
        for i in range(ASKS):
            if queued(&host.queues[i]):
                tell_thread(t)
                return


cdef inline void nothing_asked(Shared* t, Slot* slot) noexcept nogil:
    cdef int ask
    for ask in range(ASKS):
        answered(t, slot, ask)


cdef inline void settle(Shared* t, Operation* op, Request* row, int32_t code) noexcept nogil:
    """Give a row its final code."""
    if row.phase == SETTLED:
        return
    if row.phase == WAITING:
        op.waiting -= 1
    row.phase = SETTLED
    row.code = code
    op.left -= 1
    if op.left == 0:
        tell_news(t)


cdef inline void free_operation(Operation* op) noexcept nogil:
    """Call under the mutex, when no callback can find it."""
    cdef int64_t i
    cdef Chunk* chunk
    for i in range(op.size):
        blob_release(op.rows[i].value.blob)
    while op.chunks != NULL:
        chunk = op.chunks
        op.chunks = chunk.next
        free(chunk)
    for i in range(op.lane_count):
        free(op.lanes[i].queue.items)
    free(op.lanes)
    free(op.rows)
    free(op)
