# The CA thread: the only one that calls libca on purpose. It sleeps in `poll` until the event loop
# has something to send, a connection wants its subscriptions, or an answer made room for more.

cdef enum:
    STRIDE = 256  # slots or rows between two holds of the mutex
    WINDOW = 131072  # request bytes under way to one server: below what makes libca block
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


cdef struct Sending:
    Request* row
    chid channel
    const void* data
    uint64_t cell
    uint32_t count
    int16_t basic
    int status


cdef void run_thread(Shared* t) noexcept nogil:
    cdef int status = ca_context_create(ca_enable_preemptive_callback)
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
            if t.pausing:
                pump_again(t)
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
    cdef int32_t i
    attend_slots(t)
    t.holding = False
    i = 0
    while ask_host(t, i, &sent):
        i += 1
    for i in range(OPERATIONS):
        if t.operations[i] != NULL:
            sent |= pump_operation(t, i)
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
        index = pop(&host.queues[ask])
        slot = &t.slots[index]
        if (not slot.used or slot.state != CONNECTED or slot.channel == NULL or slot.host != at
                or not needed(slot, ask) or superseded(host, slot, ask, held)):
            continue
        slot.asked |= 1 << ask
        slot.asked_host = at
        host.under_way += 1
        it = &batch[size]
        it.index, it.ask, it.channel, it.subject = index, ask, slot.channel, slot.subject
        it.native, it.count = slot.native, slot.count
        it.stale = it.subscription = NULL
        if ask == EVENTS:
            it.stale = slot.value_subscription
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
        it.subscription = NULL
    if it.ask == EVENTS:
        slot.value_subscription, slot.value_subject = it.subscription, it.subject
    elif it.ask == PROPERTIES:
        slot.property_subscription, slot.property_subject = it.subscription, it.subject
    if slot.used and slot.subject != it.subject:
        attend(t, it.index)  # another type meanwhile


# -- operations -----------------------------------------------------------------------------

cdef bint pump_operation(Shared* t, int32_t at) noexcept nogil:
    cdef Operation* op
    cdef int32_t lane = 0
    cdef bint any = False
    lock(t)
    op = t.operations[at]
    if op == NULL or not op.pump:
        unlock(t)
        return False
    op.pump = False
    unlock(t)
    # The loop may close the operation meanwhile, but this thread frees it.
    while pump_lane(t, op, lane, &any):
        lane += 1
    return any


cdef inline void pump_again(Shared* t) noexcept nogil:
    cdef int32_t i
    t.pausing = False
    lock(t)
    for i in range(OPERATIONS):
        if t.operations[i] != NULL:
            t.operations[i].pump = True
    unlock(t)


cdef bint pump_lane(Shared* t, Operation* op, int32_t at, bint* any) noexcept nogil:
    cdef Sending batch[STRIDE]
    cdef int64_t size, i
    cdef bint more = True
    while more:
        lock(t)
        if op.closed or at >= op.lane_count:
            unlock(t)
            return False
        size = take_rows(t, op, &op.lanes[at], batch)
        if size:
            op.lanes[at].last = ticks()
        unlock(t)
        more = size == STRIDE
        for i in range(size):
            send(t, op, &batch[i])
        if size:
            any[0] = True
            lock(t)
            for i in range(size):
                after_sending(t, op, &batch[i])
            unlock(t)
    return True


cdef inline int64_t take_rows(Shared* t, Operation* op, Lane* lane, Sending* batch) noexcept nogil:
    cdef int64_t size = 0
    cdef int64_t cost
    cdef Request* row
    cdef Slot* slot
    while size < STRIDE and queued(&lane.queue):
        row = &op.rows[lane.queue.items[lane.queue.head]]
        cost = cost_of(row, op.purpose)
        if lane.under_way > 0 and lane.under_way + cost > WINDOW:
            break
        if op.purpose == WRITE_AND_WAIT and lane.recent >= BURST and not next_lap(lane):
            t.pausing = True
            break
        lane.queue.head += 1
        if row.phase != QUEUED:
            continue
        slot = &t.slots[row.slot]
        if slot.state != CONNECTED or slot.channel == NULL:
            wait_again(t, op, row)
            continue
        if op.purpose == READ:
            shape_read(op, row, slot)
        elif row.subject != slot.subject:
            wait_again(t, op, row)  # another type by now: encoded again
            continue
        row.phase = SENT
        lane.under_way += cost
        lane.recent += 1
        row.lap = lane.lap
        batch[size].row, batch[size].channel = row, slot.channel
        batch[size].basic, batch[size].count = row.basic, row.count
        batch[size].cell, batch[size].data = row.cell, row.payload
        size += 1
    return size


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


cdef inline void send(Shared* t, Operation* op, Sending* it) noexcept nogil:
    cdef const void* data = &it.cell if it.data == NULL else it.data
    cdef void* token = token_of(t, it.row - op.rows, op.number)
    if op.purpose == READ:
        it.status = ca_array_get_callback(
            it.basic + DBR_TIME, 1 if it.count == 1 else 0, it.channel, on_read, token)
    elif op.purpose == WRITE_AND_WAIT:
        it.status = ca_array_put_callback(
            it.basic, it.count, it.channel, data, on_write, token)
    else:
        it.status = ca_array_put(it.basic, it.count, it.channel, data)


cdef inline void after_sending(Shared* t, Operation* op, Sending* it) noexcept nogil:
    if it.status == ECA_NORMAL and op.purpose != WRITE_ONLY:
        return
    if it.row.phase != SENT:
        return  # settled meanwhile: the channel was removed
    leave_lane(op, it.row)
    if it.status == ECA_DISCONN:
        wait_again(t, op, it.row)  # libca knows before we do
    else:
        settle(t, op, it.row, it.status)


cdef void free_discarded(Shared* t) noexcept nogil:
    cdef int64_t i
    lock(t)
    for i in range(t.discarded_count):
        free_operation(t.discarded[i])
    t.discarded_count = 0
    unlock(t)
