# What libca calls, in its receive threads, or in the CA thread while that clears a channel. They
# copy and return: no Python, no call into libca while the table's mutex is held, no allocation
# for scalars. What a server says is checked before it is believed.

cdef Shared* tables[256]


cdef inline Shared* table_of(void* token) noexcept nogil:
    return tables[<uint64_t>token >> 56]


cdef void on_connection(connection_handler_args args) noexcept nogil:
    cdef void* token = ca_puser(args.chid)
    cdef Shared* t = table_of(token)
    cdef Slot* slot
    cdef char host[64]
    cdef bint up = args.op == CA_OP_CONN_UP
    cdef int16_t native = -1
    cdef uint32_t count = 0
    cdef uint8_t rights = 0
    cdef int64_t when = now()
    if t == NULL:
        return
    if up:
        native = ca_field_type(args.chid)
        count = <uint32_t>ca_element_count(args.chid)
        rights = rights_of(ca_read_access(args.chid), ca_write_access(args.chid))
        memset(host, 0, sizeof(host))
        ca_get_host_name(args.chid, host, sizeof(host))
    lock(t)
    slot = live(t, token, False)
    if slot != NULL:
        if not up:
            lose(t, slot, when)
        elif 0 <= native <= DBR_DOUBLE:
            gain(t, slot, native, count, rights, host_of(t, host), when)
        else:
            t.bad_events += 1
        t.connection_changes += 1
        tell_loop(t)
    unlock(t)


cdef inline uint8_t rights_of(unsigned read, unsigned write) noexcept nogil:
    return (READ_RIGHT if read else 0) | (WRITE_RIGHT if write else 0)


cdef inline void lose(Shared* t, Slot* slot, int64_t when) noexcept nogil:
    nothing_asked(t, slot)
    slot.unheard_since = 0
    if slot.state == CONNECTED:
        t.connected -= 1
        slot.state = DISCONNECTED
        slot.state_time = when
        if slot.unlabeled and not slot.bygone:
            drop_value(slot)  # nobody knows what the number meant
        if t.operations_open:
            t.pump_all = True  # what is queued for it waits for its return
            tell_thread(t)
        mark_dirty(t, <int32_t>(slot - t.slots))


cdef inline void drop_value(Slot* slot) noexcept nogil:
    blob_release(slot.value.blob)
    memset(&slot.value, 0, sizeof(Value))
    slot.unseen = slot.bygone = False


cdef inline bint withheld(const Slot* slot) noexcept nogil:
    """Whether a value has come that cannot be told yet: a number of an enum without its labels."""
    return (slot.unlabeled and slot.state == CONNECTED and slot.value.kind == KIND_ENUM
            and not slot.bygone)


cdef inline void gain(
    Shared* t, Slot* slot, int16_t native, uint32_t count, uint8_t rights, int32_t host,
    int64_t when
) noexcept nogil:
    cdef int32_t index = <int32_t>(slot - t.slots)
    if slot.native >= 0 and (slot.native != native or slot.count != count):
        forget_value(t, slot)
        nothing_asked(t, slot)
        slot.subject += 1
    slot.native = native
    slot.count = count
    slot.rights = rights
    slot.host = host
    note_rush(&t.hosts[host])
    if rights & READ_RIGHT:
        t.hosts[host].reader = index
    doubt_host(t, &t.hosts[host])  # a circuit that came back may still hold what it was given
    slot.long_string = slot.dollar and native == DBR_CHAR
    slot.bygone = slot.value.kind != KIND_NONE
    slot.unlabeled = native == DBR_ENUM
    if slot.state != CONNECTED:
        t.connected += 1
        slot.state = CONNECTED
    slot.state_time = when
    if slot.value_subscription != NULL:  # libca asks for it again
        slot.unheard_since = ticks()
    mark_dirty(t, index)
    mark_info(t, index)
    attend(t, index)


cdef inline void note_rush(Host* host) noexcept nogil:
    """One more channel of a server has connected."""
    cdef int64_t when = ticks()
    host.rush = host.rush + 1 if when - host.gained < QUIET else 1
    host.gained = when


cdef void on_access(access_rights_handler_args args) noexcept nogil:
    cdef void* token = ca_puser(args.chid)
    cdef Shared* t = table_of(token)
    cdef uint8_t rights = rights_of(args.ar.read_access, args.ar.write_access)
    cdef Slot* slot
    if t == NULL:
        return
    lock(t)
    slot = live(t, token, False)
    # libca withdraws all rights of a lost channel; what was last known stays instead.
    if slot != NULL and slot.state == CONNECTED and slot.rights != rights:
        slot.rights = rights
        mark_info(t, index_of(token))
        attend(t, index_of(token))
    unlock(t)


cdef void on_value(event_handler_args args) noexcept nogil:
    keep_value(args, EVENTS)


cdef void on_first_value(event_handler_args args) noexcept nogil:
    keep_value(args, FIRST_VALUE)


cdef inline void keep_value(event_handler_args args, int ask) noexcept nogil:
    cdef Shared* t = table_of(args.usr)
    cdef Slot* slot
    cdef Value fresh
    cdef int basic = args.type - DBR_TIME
    cdef int16_t native
    cdef uint32_t agreed
    cdef bint long_string, array
    if t == NULL:
        return
    lock(t)
    slot = live(t, args.usr, True)
    if slot == NULL:
        unlock(t)
        return
    answered(t, slot, ask)
    if ask == EVENTS and not slot.unlabeled:
        slot.unheard_since = 0
    if args.status != ECA_NORMAL:
        # Lost connection or access, which come as events of their own too.
        if args.status == ECA_NORDACCESS and slot.value.kind != KIND_NONE:
            drop_value(slot)  # what it is from now on nobody may know
            mark_dirty(t, index_of(args.usr))
        t.bad_events += (
            args.status != ECA_DISCONN and args.status != ECA_NORDACCESS
            and args.status != ECA_CHANDESTROY)
        unlock(t)
        return
    native, agreed, long_string = slot.native, slot.count, slot.long_string
    array = agreed != 1 and not long_string
    if not believable(&args, basic, native, agreed, array or long_string):
        t.bad_events += 1
        unlock(t)
        return
    fresh.receive_time = now()
    if array or long_string:
        # Copied without the lock: an array may be large.
        unlock(t)
        if not decode_time(&fresh, <const char*>args.dbr, basic, args.count, long_string, array):
            fresh.kind = KIND_NONE
        lock(t)
        slot = live(t, args.usr, True)
        if slot == NULL or fresh.kind == KIND_NONE:
            t.bad_events += fresh.kind == KIND_NONE
            if fresh.kind != KIND_NONE:
                blob_release(fresh.blob)
            unlock(t)
            return
    elif not decode_time(&fresh, <const char*>args.dbr, basic, 1, False, False):
        t.bad_events += 1
        unlock(t)
        return
    if ask == EVENTS:
        t.updates += 1
        if not slot.fed and not slot.bygone and says_the_same(&slot.value, &fresh):
            slot.fed = True  # from here on it is the subscription's; nothing to publish again
            unlock(t)
            return
        slot.merged += slot.unseen and slot.fed
        slot.fed = True
    elif slot.fed and not slot.bygone:  # events are newer than what was read before they were asked for
        blob_release(fresh.blob)
        unlock(t)
        return
    blob_release(slot.value.blob)
    slot.value = fresh
    slot.unseen = True
    slot.bygone = False
    if not withheld(slot):
        mark_dirty(t, index_of(args.usr))
    unlock(t)


cdef inline bint says_the_same(const Value* had, const Value* fresh) noexcept nogil:
    """Whether a subscription's first event repeats what was read before it; scalars only."""
    return (had.kind == fresh.kind and had.blob == NULL and fresh.blob == NULL
            and had.data == fresh.data and had.source_time == fresh.source_time
            and had.severity == fresh.severity and had.status == fresh.status)


cdef inline bint believable(
    const event_handler_args* args, int basic, int expected, uint32_t agreed, bint many
) noexcept nogil:
    """Whether a reply has the type asked for, and no more elements than the channel has."""
    if basic != expected or args.dbr == NULL or args.count < 0:
        return False
    return args.count <= agreed if many else args.count == 1


cdef void on_property(event_handler_args args) noexcept nogil:
    keep_metadata(args, PROPERTIES)


cdef void on_metadata(event_handler_args args) noexcept nogil:
    keep_metadata(args, METADATA)


cdef inline void keep_metadata(event_handler_args args, int ask) noexcept nogil:
    cdef Shared* t = table_of(args.usr)
    cdef Slot* slot
    cdef Meta fresh
    cdef Meta* kept
    cdef int basic = args.type - DBR_CTRL
    cdef bint first, good
    if t == NULL:
        return
    lock(t)
    slot = live(t, args.usr, True)
    if slot == NULL:
        unlock(t)
        return
    answered(t, slot, ask)
    if args.status == ECA_DISCONN or args.status == ECA_CHANDESTROY:
        unlock(t)
        return
    first = slot.unlabeled
    slot.unlabeled = False
    if first and slot.unseen:
        mark_dirty(t, index_of(args.usr))
    if first and slot.fed and not slot.bygone:
        slot.unheard_since = 0
    good = (args.status == ECA_NORMAL and basic == slot.native and args.dbr != NULL
            and basic != DBR_STRING and decode_ctrl(&fresh, <const char*>args.dbr, basic))
    if not good:
        t.bad_events += args.status == ECA_NORMAL
        if first:
            forget_meta(t, slot)
    elif slot.meta != NULL and same_meta(slot.meta, &fresh):
        blob_release(fresh.labels)
    else:
        kept = <Meta*>malloc(sizeof(Meta))
        if kept == NULL:
            t.bad_events += 1
            blob_release(fresh.labels)
        else:
            kept[0] = fresh
            free_meta(slot.meta)
            slot.meta = kept
            mark_info(t, index_of(args.usr))
    unlock(t)


cdef inline void forget_meta(Shared* t, Slot* slot) noexcept nogil:
    """The server does not tell the labels: those of an earlier connection do not count."""
    if slot.meta != NULL:
        free_meta(slot.meta)
        slot.meta = NULL
        mark_info(t, <int32_t>(slot - t.slots))


cdef inline void doubt_host(Shared* t, Host* host) noexcept nogil:
    """Have a fence tell when the server has taken all that it was given."""
    if host.handed > host.taken and not host.doubted:
        host.doubted = True
        tell_thread(t)


cdef inline void note_taken(Shared* t, Host* host, int64_t mark) noexcept nogil:
    """The server has answered what was asked when it had been given `mark` bytes."""
    if mark > host.taken:
        host.taken = mark
    if host.waiting and host.handed - host.taken <= host.enough:
        host.waiting = False
        t.pump_all = True
        tell_thread(t)


cdef void on_fence(event_handler_args args) noexcept nogil:
    cdef Shared* t = table_of(args.usr)
    cdef Host* host
    if t == NULL:
        return
    lock(t)
    host = &t.hosts[index_of(args.usr)]
    if host.fencing and number_of(args.usr) == (host.fence_number & 0xFF_FFFFu):
        host.fencing = False
        if args.status == ECA_DISCONN or args.status == ECA_CHANDESTROY:
            doubt_host(t, host)  # by another channel, or when one is back
        else:
            note_taken(t, host, host.fence)
        if host.doubted:
            tell_thread(t)
    unlock(t)


cdef inline Operation* operation_of(Shared* t, void* token) noexcept nogil:
    """The operation that a reply belongs to, or NULL if nobody waits for it any more."""
    cdef Operation* op = t.operations[number_of(token) % OPERATIONS]
    if op == NULL or op.number != number_of(token) or index_of(token) >= op.size:
        return NULL
    return op


cdef inline Request* sent_row(Shared* t, Operation* op, void* token) noexcept nogil:
    return &op.rows[index_of(token)] if op.rows[index_of(token)].phase == SENT else NULL


cdef inline int64_t cost_of(const Request* row, uint8_t purpose) noexcept nogil:
    """Bytes of a request on the wire, or a little more."""
    if purpose == READ:
        return 32
    return 32 + <int64_t>row.count * element_size(row.basic)


cdef inline void leave_lane(Operation* op, Request* row) noexcept nogil:
    """A row that was sent takes no room among its lane's puts any more."""
    op.lanes[row.lane].recent -= row.lap == op.lanes[row.lane].lap


cdef inline void note_answer(Shared* t, Operation* op, Request* row, int32_t code) noexcept nogil:
    """An answer came, from the server unless `code` is libca's for what it has lost."""
    cdef Lane* lane = &op.lanes[row.lane]
    leave_lane(op, row)
    if code != ECA_DISCONN and code != ECA_CHANDESTROY:
        note_taken(t, &t.hosts[lane.host], row.mark)
        lane.last = ticks()
    if code == ECA_DISCONN or (lane.bursting and lane.recent < BURST // 2):
        lane.bursting = False
        op.pump = True
        tell_thread(t)


cdef inline void wait_again(Shared* t, Operation* op, Request* row) noexcept nogil:
    """A row goes back to waiting for its channel."""
    row.phase = WAITING
    op.waiting += 1
    tell_news(t)


cdef void on_read(event_handler_args args) noexcept nogil:
    cdef Shared* t = table_of(args.usr)
    cdef Operation* op
    cdef Request* row
    cdef Request asked
    cdef Value fresh
    cdef int32_t code = args.status
    cdef bint many
    if t == NULL:
        return
    fresh.blob = NULL
    fresh.kind = KIND_NONE
    fresh.receive_time = now()
    lock(t)
    op = operation_of(t, args.usr)
    row = NULL if op == NULL else sent_row(t, op, args.usr)
    if row != NULL and code == ECA_NORMAL:
        asked = row[0]
        many = asked.array or asked.long_string
        if not believable(&args, args.type - DBR_TIME, asked.basic, asked.count, many):
            t.bad_events += 1
            code = ECA_BADTYPE if args.type - DBR_TIME != asked.basic else ECA_BADCOUNT
        else:
            unlock(t)
            if not decode_time(
                    &fresh, <const char*>args.dbr, asked.basic, args.count,
                    asked.long_string, asked.array):
                code = ECA_ALLOCMEM
            lock(t)
            op = operation_of(t, args.usr)
            row = NULL if op == NULL else sent_row(t, op, args.usr)
    if row == NULL:
        t.late += code != ECA_CHANDESTROY
        blob_release(fresh.blob)
    else:
        note_answer(t, op, row, args.status)
        if code == ECA_DISCONN:
            wait_again(t, op, row)
        else:
            if code == ECA_NORMAL:
                row.value = fresh
            settle(t, op, row, code)
    unlock(t)


cdef void on_write(event_handler_args args) noexcept nogil:
    cdef Shared* t = table_of(args.usr)
    cdef Operation* op
    cdef Request* row
    cdef Slot* slot
    if t == NULL:
        return
    lock(t)
    slot = live(t, ca_puser(args.chid), False)
    op = operation_of(t, args.usr)
    row = NULL if op == NULL else sent_row(t, op, args.usr)
    if slot != NULL and args.status == ECA_DISCONN:
        doubt_write(t, slot)
    if row == NULL:
        t.late += args.status != ECA_CHANDESTROY
        if slot != NULL and slot.unanswered:
            slot.unanswered -= 1
    else:
        note_answer(t, op, row, args.status)
        # Lost after sending: whether it was done nobody knows, so it is never sent again.
        settle(t, op, row, ECA_TIMEOUT if args.status == ECA_DISCONN else args.status)
    unlock(t)


cdef inline void doubt_write(Shared* t, Slot* slot) noexcept nogil:
    """No answer will tell of a write: it may happen until its server has taken all it was given."""
    slot.doubt_host = slot.host
    slot.doubt = t.hosts[slot.host].handed


cdef void on_exception(exception_handler_args args) noexcept nogil:
    # Without a handler of ours libca would end the process for a server's error message.
    cdef Shared* t = table_of(args.usr)
    if t == NULL:
        return
    lock(t)
    t.exceptions += 1
    t.last_exception = <int32_t>args.stat
    t.last_context[0] = 0
    if args.ctx != NULL:
        strncpy(t.last_context, args.ctx, sizeof(t.last_context) - 1)
        if args.stat == ECA_DBLCHNL and t.double_count < DOUBLES:
            # the table's memory is zero there, and the last byte stays so
            strncpy(t.doubles[t.double_count], args.ctx, DOUBLE_TEXT - 1)
            t.double_count += 1
    tell_loop(t)
    unlock(t)
