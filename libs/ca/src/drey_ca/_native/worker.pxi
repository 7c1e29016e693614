# The CA thread: the only one that calls libca on purpose. It sleeps in `poll` until the event loop
# has something to send, a connection wants its subscriptions, or an answer made room for more.

cdef enum:
    STRIDE = 256  # slots or rows between two holds of the mutex
    WINDOW = 131072  # request bytes that a server gets before it has taken some
    # Puts with completion that one server gets before it answers some: an IOC announces each
    # completion through a queue of 2000 entries, and loses those that find it full, upon which the
    # put never completes and the next to its channel blocks the circuit for a minute. A server that
    # is silent for PAUSE has slow devices, not a full queue: it gets as many again.
    BURST = 250
    PAUSE = 50_000_000  # ns


cdef struct Asking:
    int32_t index
    int ask
    chid channel
    evid stale
    evid subscription
    uint32_t subject
    uint32_t count
    int16_t native
    int status


cdef void run_thread(Shared* t) noexcept nogil:
    cdef int status = ca_context_create(ca_enable_preemptive_callback)
    # libca lets its callers wait where a server takes nothing, but never its own threads. This one
    # counts what each server has taken, and must not wait for one of them.
    epicsThreadPrivateSet(caClientCallbackThreadId, t)
    if status == ECA_NORMAL:
        ca_add_exception_event(on_exception, token_of(t, 0, 0))
    lock(t)
    t.start_code = status
    tell_loop(t)
    unlock(t)
    if status == ECA_NORMAL:
        while not stopping(t):
            if work(t):
                ca_flush_io()
            sleep_until_told(t)
        clear_channels(t)
        ca_context_destroy()
    lock(t)
    t.closed = True
    tell_loop(t)
    unlock(t)


cdef inline bint stopping(Shared* t) noexcept nogil:
    lock(t)
    t.thread_told = False
    cdef bint closing = t.closing
    unlock(t)
    return closing


cdef inline void sleep_until_told(Shared* t) noexcept nogil:
    cdef pollfd told
    cdef uint64_t rung
    told.fd, told.events, told.revents = t.thread_fd, POLLIN, 0
    poll(&told, 1, 10 if t.pausing or t.holding else -1)
    if told.revents & POLLIN:
        read(t.thread_fd, &rung, 8)


cdef bint work(Shared* t) noexcept nogil:
    """One round over everything that waits; whether libca was given something to send."""
    cdef bint sent = run_commands(t)
    cdef int32_t i, at, first
    cdef bint all_of_them
    attend_slots(t)
    t.holding = False
    i = 0
    while ask_host(t, i, &sent):
        i += 1
    lock(t)
    all_of_them = t.pump_all or t.pausing
    t.pump_all = t.pausing = False
    unlock(t)
    first = t.turn
    for i in range(OPERATIONS):
        at = (first + i) % OPERATIONS
        if pump_operation(t, at, all_of_them):
            sent = True
            if t.turn == first:
                t.turn = (at + 1) % OPERATIONS  # the next round begins behind it
    i = 0
    while fence_host(t, i, &sent):
        i += 1
    if take_naming(t):
        give_up_late_asks(t)
        i = 0
        while name_host(t, i):
            i += 1
    free_discarded(t)
    return sent


# -- commands -------------------------------------------------------------------------------

cdef bint run_commands(Shared* t) noexcept nogil:
    cdef Command* command
    cdef bint any = False
    while True:
        lock(t)
        command = t.first
        if command != NULL:
            t.first = command.next
            if t.first == NULL:
                t.last = NULL
        unlock(t)
        if command == NULL:
            return any
        any = True
        if command.kind == ADD:
            create_channels(t, command)
        else:
            remove_channels(t, command)
        lock(t)
        t.commands_done = command.number
        tell_loop(t)
        unlock(t)
        free(command.slots)
        free(command)


cdef void create_channels(Shared* t, Command* command) noexcept nogil:
    cdef int64_t i
    cdef int status
    cdef chid channel
    cdef const char* name = command.names
    cdef void* token
    cdef bint dying
    for i in range(command.size):
        lock(t)
        token = token_of(t, command.slots[i], t.slots[command.slots[i]].generation)
        dying = t.slots[command.slots[i]].dying
        unlock(t)
        if not dying:
            status = ca_create_channel(name, on_connection, token, 0, &channel)
            lock(t)
            if status == ECA_NORMAL:
                t.slots[command.slots[i]].channel = channel
            elif t.add_failure == 0:
                t.add_failure = status
            unlock(t)
            if status == ECA_NORMAL:
                ca_replace_access_rights_event(channel, on_access)
        name += strlen(name) + 1
        if i % 1000 == 999:
            ca_flush_io()


cdef void remove_channels(Shared* t, Command* command) noexcept nogil:
    cdef int64_t i
    cdef chid channel
    for i in range(command.size):
        lock(t)
        channel = t.slots[command.slots[i]].channel
        t.slots[command.slots[i]].channel = NULL
        unlock(t)
        if channel != NULL:
            ca_clear_channel(channel)  # no callback of it is running or will run after this
        lock(t)
        release_slot(t, command.slots[i])
        unlock(t)


cdef inline void release_slot(Shared* t, int32_t index) noexcept nogil:
    cdef Slot* slot = &t.slots[index]
    nothing_asked(t, slot)
    forget_value(t, slot)
    slot.value_subscription = slot.property_subscription = NULL
    slot.dying = False
    slot.generation += 1
    slot.subject += 1
    # There is room: the queue once held every slot at a time, or grows by doubling. Without
    # memory the slot is lost to use, nothing else.
    push(&t.free, index)


cdef void clear_channels(Shared* t) noexcept nogil:
    """At the end. For a quarter of a second at most: the rest goes with the context."""
    cdef int64_t i
    cdef chid channel
    cdef int64_t deadline = ticks() + 250_000_000
    for i in range(t.capacity):
        lock(t)
        channel = t.slots[i].channel
        t.slots[i].channel = NULL
        unlock(t)
        if channel != NULL:
            ca_clear_channel(channel)
            if i % 64 == 0 and ticks() > deadline:
                return


# -- connections: first values, metadata and subscriptions ----------------------------------

cdef void attend_slots(Shared* t) noexcept nogil:
    """Queue what the slots that connected or were subscribed need, at their servers."""
    cdef int64_t taken, i
    while True:
        lock(t)
        taken = min(t.attend.size, STRIDE)
        for i in range(taken):
            queue_asks(t, t.attend.items[i])
        drop_first(&t.attend, taken)
        unlock(t)
        if taken == 0:
            return


cdef inline void queue_asks(Shared* t, int32_t index) noexcept nogil:
    cdef Slot* slot = &t.slots[index]
    cdef Queue* queues
    cdef int ask
    slot.attended = False
    if not slot.used or slot.state != CONNECTED:
        return
    queues = t.hosts[slot.host].queues
    for ask in range(ASKS):
        if needed(slot, ask):
            push(&queues[ask], index)  # without memory it stays as it is until it reconnects


cdef inline bint needed(const Slot* slot, int ask) noexcept nogil:
    if slot.asked & (1 << ask):
        return False
    if ask == FIRST_VALUE:
        return slot.wanted and slot.value.kind == KIND_NONE and slot.rights & READ_RIGHT
    if ask == EVENTS:
        return slot.wanted and (
            slot.value_subscription == NULL or slot.value_subject != slot.subject)
    if slot.native == DBR_STRING:  # has no metadata
        return False
    if ask == METADATA:
        return slot.rights & READ_RIGHT and (not slot.wanted or slot.meta == NULL)
    return slot.wanted and (
        slot.property_subscription == NULL or slot.property_subject != slot.subject)


cdef inline int next_ask(const Host* host, bint held) noexcept nogil:
    """What to ask a server next, or -1."""
    cdef int ask
    for ask in range(EVENTS if held else ASKS):
        if queued(&host.queues[ask]):
            return ask
    return -1


cdef inline bint must_hold(Host* host) noexcept nogil:
    """Whether a server's subscriptions have to wait, because many channels connect there."""
    cdef int64_t when = ticks()
    if not (queued(&host.queues[EVENTS]) or queued(&host.queues[PROPERTIES])):
        host.holding_since = 0
        return False
    if host.holding_since == 0:
        host.holding_since = when
    return (host.rush > RUSH and when - host.gained < QUIET
            and when - host.holding_since < LONGEST)


cdef inline bint superseded(
        const Host* host, const Slot* slot, int ask, bint held) noexcept nogil:
    """A get is not worth its while where the subscription's first event comes as soon."""
    if held:
        return False
    if ask == FIRST_VALUE:
        return queued(&host.queues[EVENTS]) < HOST_WINDOW
    if ask == METADATA and slot.wanted:
        return (queued(&host.queues[EVENTS]) + queued(&host.queues[PROPERTIES])) < HOST_WINDOW
    return False


cdef inline bint must_rest(Host* host) noexcept nogil:
    """Whether a server is to be left alone with PROPERTIES for now."""
    cdef int64_t when = ticks()
    if host.properties:
        if host.spell_left:
            return False
        if when - host.spell < LATE:
            return True
    elif host.spell:
        host.rested = host.spell_end + REST * (host.spell_end - host.spell)
        host.spell = 0
    if when < host.rested:
        return True
    host.spell, host.spell_left = when, SPELL
    return False


cdef inline int32_t window_of(const Shared* t, int ask) noexcept nogil:
    return BUSY_WINDOW if ask >= EVENTS and t.operations_open else HOST_WINDOW


cdef bint ask_host(Shared* t, int32_t at, bint* sent) noexcept nogil:
    """Ask one server for as much as its window has room for; False past the last."""
    cdef Asking batch[STRIDE]
    cdef int64_t size, i
    while True:
        lock(t)
        if at >= t.host_count:
            unlock(t)
            return False
        size = take_asks(t, at, batch)
        unlock(t)
        if size == 0:
            return True
        sent[0] = True
        for i in range(size):
            make_request(t, &batch[i])
        lock(t)
        for i in range(size):
            after_asking(t, &batch[i])
        unlock(t)


cdef inline int64_t take_asks(Shared* t, int32_t at, Asking* batch) noexcept nogil:
    cdef Host* host = &t.hosts[at]
    cdef Slot* slot
    cdef Asking* it
    cdef int ask
    cdef int32_t index
    cdef int64_t size = 0
    cdef bint held = must_hold(host)
    t.holding |= held
    while size < STRIDE:
        ask = next_ask(host, held)
        if ask < 0 or host.under_way >= window_of(t, ask):
            break
        if ask == PROPERTIES and must_rest(host):
            t.holding = True
            break
        index = pop(&host.queues[ask])
        slot = &t.slots[index]
        if (not slot.used or slot.state != CONNECTED or slot.channel == NULL or slot.host != at
                or not needed(slot, ask) or superseded(host, slot, ask, held)):
            continue
        slot.asked |= 1 << ask
        slot.asked_host = at
        if ask == PROPERTIES:
            host.properties += 1
            host.spell_left -= 1
        host.under_way += 1
        it = &batch[size]
        it.index, it.ask, it.channel, it.subject = index, ask, slot.channel, slot.subject
        it.native, it.count = slot.native, slot.count
        it.stale = it.subscription = NULL
        if ask == EVENTS:
            it.stale = slot.value_subscription
            slot.unheard_since = ticks()
        elif ask == PROPERTIES:
            it.stale = slot.property_subscription
        size += 1
    return size


cdef inline void make_request(Shared* t, Asking* it) noexcept nogil:
    cdef void* token = token_of(t, it.index, it.subject)
    cdef unsigned long count = 1 if it.count == 1 else 0
    if it.stale != NULL:
        ca_clear_subscription(it.stale)
    if it.ask == FIRST_VALUE:
        it.status = ca_array_get_callback(
            it.native + DBR_TIME, count, it.channel, on_first_value, token)
    elif it.ask == METADATA:
        it.status = ca_array_get_callback(
            it.native + DBR_CTRL, 1, it.channel, on_metadata, token)
    elif it.ask == EVENTS:
        it.status = ca_create_subscription(
            it.native + DBR_TIME, count, it.channel, DBE_VALUE | DBE_ALARM,
            on_value, token, &it.subscription)
    else:
        it.status = ca_create_subscription(
            it.native + DBR_CTRL, 1, it.channel, DBE_PROPERTY,
            on_property, token, &it.subscription)


cdef inline void after_asking(Shared* t, Asking* it) noexcept nogil:
    cdef Slot* slot = &t.slots[it.index]
    if it.status != ECA_NORMAL:
        # Disconnected by now, and asked again when it is back.
        answered(t, slot, it.ask)
        if it.ask == EVENTS:
            slot.unheard_since = 0
        it.subscription = NULL
    if it.ask == EVENTS:
        slot.value_subscription, slot.value_subject = it.subscription, it.subject
    elif it.ask == PROPERTIES:
        slot.property_subscription, slot.property_subject = it.subscription, it.subject
    if slot.used and slot.subject != it.subject:
        attend(t, it.index)  # another type meanwhile


# -- operations -----------------------------------------------------------------------------

cdef bint pump_operation(Shared* t, int32_t at, bint again) noexcept nogil:
    """Send what an operation may; whether anything was."""
    cdef Operation* op
    cdef int32_t lane = 0
    cdef bint any = False
    lock(t)
    op = t.operations[at]
    if op == NULL or not (op.pump or again):
        unlock(t)
        return False
    op.pump = False
    unlock(t)
    # The loop may close the operation meanwhile, but this thread frees it.
    while pump_lane(t, op, lane, &any):
        lane += 1
    return any


cdef bint pump_lane(Shared* t, Operation* op, int32_t at, bint* any) noexcept nogil:
    """Send a lane's rows while there is room; False past the last.

    Row by row: one is taken and marked as sent under the mutex, then given to libca. So what an
    operation that is closed has not marked is never sent.
    """
    cdef Request* row
    cdef chid channel
    cdef int status
    while True:
        lock(t)
        if op.closed or at >= op.lane_count:
            unlock(t)
            return False
        row = take_row(t, op, &op.lanes[at])
        channel = NULL if row == NULL else t.slots[row.slot].channel
        unlock(t)
        if row == NULL:
            return True
        any[0] = True
        status = send(t, op, row, channel)
        if status != ECA_NORMAL or op.purpose == WRITE_ONLY:
            lock(t)
            after_sending(t, op, row, status)
            unlock(t)


cdef inline Request* take_row(Shared* t, Operation* op, Lane* lane) noexcept nogil:
    """The next row that can be sent, marked as sent; NULL if there is none or no room."""
    cdef int64_t cost
    cdef Request* row
    cdef Slot* slot
    cdef Host* host = &t.hosts[lane.host]
    while queued(&lane.queue):
        row = &op.rows[lane.queue.items[lane.queue.head]]
        slot = &t.slots[row.slot]
        if row.phase != QUEUED:
            lane.queue.head += 1
            continue
        # Not where it was queued for, of another type or on another connection by now: looked at
        # and encoded again.
        if (slot.state != CONNECTED or slot.channel == NULL or slot.host != lane.host
                or (op.purpose != READ
                    and (row.subject != slot.subject or row.since != slot.state_time))):
            lane.queue.head += 1
            wait_again(t, op, row)
            continue
        cost = cost_of(row, op.purpose)
        if not has_room(t, host, cost):
            return NULL
        if op.purpose == WRITE_AND_WAIT and lane.recent >= BURST and not next_lap(lane):
            lane.bursting = t.pausing = True
            return NULL
        lane.queue.head += 1
        if op.purpose == READ:
            shape_read(op, row, slot)
        row.phase = SENT
        host.handed += cost
        row.mark = host.handed
        host.last = lane.last = ticks()
        lane.recent += 1
        row.lap = lane.lap
        return row
    return NULL


cdef inline bint has_room(Shared* t, Host* host, int64_t cost) noexcept nogil:
    """Whether a server may be given as much. Once it may not, nobody gives it more until it has taken
    half of a window, or everything, for what is larger: so small rows do not pass a large one for ever.
    """
    cdef int64_t under_way = host.handed - host.taken
    if not host.waiting and (under_way == 0 or under_way + cost <= WINDOW):
        return True
    if not host.waiting:
        host.waiting = True
        host.enough = WINDOW // 2 if cost <= WINDOW // 2 else 0
    doubt_host(t, host)
    return False


cdef inline bint next_lap(Lane* lane) noexcept nogil:
    """Whether the server has been silent for long enough to be sent another burst."""
    if ticks() - lane.last < PAUSE:
        return False
    lane.lap += 1
    lane.recent = 0
    return True


cdef inline void shape_read(Operation* op, Request* row, Slot* slot) noexcept nogil:
    row.count = slot.count
    row.basic = slot.native if op.asked < 0 else op.asked
    row.long_string = slot.long_string and op.asked < 0
    row.array = slot.count != 1 and not row.long_string


cdef inline int send(Shared* t, Operation* op, Request* row, chid channel) noexcept nogil:
    """Give a row to libca, which copies what it needs. Without the mutex: the row is this thread's."""
    cdef const void* data = <const void*>row.payload if row.payload != NULL else &row.cell
    cdef void* token = token_of(t, row - op.rows, op.number)
    if op.purpose == READ:
        return ca_array_get_callback(
            row.basic + DBR_TIME, 1 if row.count == 1 else 0, channel, on_read, token)
    if op.purpose == WRITE_AND_WAIT:
        return ca_array_put_callback(row.basic, row.count, channel, data, on_write, token)
    return ca_array_put(row.basic, row.count, channel, data)


cdef inline void after_sending(Shared* t, Operation* op, Request* row, int status) noexcept nogil:
    """Of a row that gets no answer: there is none to a put alone, or libca refused it."""
    cdef Slot* slot = &t.slots[row.slot]
    cdef bint same = slot.used and slot.generation == row.generation
    if op.closed and row.phase == SENT and op.purpose != READ and same:
        slot.unanswered -= 1  # counted when it was closed
    if status == ECA_NORMAL and same:
        doubt_write(t, slot)
        doubt_host(t, &t.hosts[slot.host])
    if row.phase != SENT or op.closed:
        return  # settled meanwhile: the channel was removed
    leave_lane(op, row)
    if status == ECA_DISCONN:
        wait_again(t, op, row)  # libca knows before we do
    else:
        settle(t, op, row, status)


# -- fences: has a server taken what it was given? ------------------------------------------

cdef bint fence_host(Shared* t, int32_t at, bint* sent) noexcept nogil:
    """Ask one server something where that is to be found out; False past the last."""
    cdef Host* host
    cdef chid channel = NULL
    cdef int16_t basic = 0
    cdef int32_t reader = -1
    cdef void* token = NULL
    cdef bint connected = False
    lock(t)
    if at >= t.host_count:
        unlock(t)
        return False
    host = &t.hosts[at]
    if host.doubted and not host.fencing:
        host.doubted = False
        reader = reader_of(t, at, &connected) if host.handed > host.taken else -1
        if reader >= 0:
            host.fencing, host.fence = True, host.handed
            host.fence_number += 1
            token = token_of(t, at, host.fence_number)
            channel, basic = t.slots[reader].channel, t.slots[reader].native
        elif connected and ticks() - host.last > PAUSE:
            # None of its channels may be read, so nobody can ask. It had time, and gets as much again.
            note_taken(t, host, host.handed)
        elif connected:
            host.doubted = t.pausing = True
        # Else it is doubted again when it is back.
    unlock(t)
    if reader >= 0:
        sent[0] = True
        if ca_array_get_callback(basic, 1, channel, on_fence, token) != ECA_NORMAL:
            lock(t)
            t.hosts[at].fencing = False
            t.hosts[at].doubted = t.pausing = True
            unlock(t)
    return True


cdef int32_t reader_of(Shared* t, int32_t at, bint* connected) noexcept nogil:
    """A slot by which a server can be asked, or -1; whether any of its channels is connected."""
    cdef int32_t index = t.hosts[at].reader
    if index >= 0 and can_ask(t, index, at):
        return index
    for index in range(<int32_t>t.capacity):
        connected[0] |= t.slots[index].used and t.slots[index].host == at and (
            t.slots[index].state == CONNECTED)
        if can_ask(t, index, at):
            t.hosts[at].reader = index
            return index
    return -1


cdef inline bint can_ask(Shared* t, int32_t index, int32_t at) noexcept nogil:
    cdef Slot* slot = &t.slots[index]
    return (slot.used and slot.host == at and slot.state == CONNECTED and slot.channel != NULL
            and slot.rights & READ_RIGHT)


# -- names of servers: libca has an address until the name service has answered ---------------

cdef inline bint take_naming(Shared* t) noexcept nogil:
    lock(t)
    cdef bint naming = t.naming
    t.naming = False
    unlock(t)
    return naming


cdef void give_up_late_asks(Shared* t) noexcept nogil:
    """Where a window is full of subscriptions that nothing came of, make room in it."""
    cdef int64_t at = 0, stop, i
    cdef Slot* slot
    cdef bint full = False
    lock(t)
    for i in range(t.host_count):
        full |= t.hosts[i].under_way >= BUSY_WINDOW
    stop = t.capacity if full else 0
    unlock(t)
    while at < stop:
        lock(t)
        for i in range(at, min(stop, at + 4096)):
            slot = &t.slots[i]
            if slot.asked and slot.unheard_since and ticks() - slot.unheard_since > LATE:
                nothing_asked(t, slot)
        unlock(t)
        at += 4096


cdef bint name_host(Shared* t, int32_t at) noexcept nogil:
    """Take over the name that a server has by now; False past the last."""
    cdef int32_t reader = -1
    cdef chid channel = NULL
    cdef bint connected = False
    cdef char name[64]
    lock(t)
    if at >= t.host_count:
        unlock(t)
        return False
    if 48 <= t.hosts[at].name[0] <= 57:  # a digit
        reader = reader_of(t, at, &connected)
        if reader >= 0:
            channel = t.slots[reader].channel
    unlock(t)
    if reader >= 0:
        memset(name, 0, sizeof(name))
        ca_get_host_name(channel, name, sizeof(name))
        if name[0]:
            lock(t)
            memcpy(t.hosts[at].name, name, sizeof(name))
            unlock(t)
    return True


cdef void free_discarded(Shared* t) noexcept nogil:
    cdef int64_t i
    lock(t)
    for i in range(t.discarded_count):
        free_operation(t.discarded[i])
    t.discarded_count = 0
    unlock(t)
