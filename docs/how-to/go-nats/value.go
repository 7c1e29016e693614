package main

import (
	"encoding/binary"
	"fmt"
	"math"

	commonv1 "github.com/drey-controls/drey-go/common/v1"
	eventsv1 "github.com/drey-controls/drey-go/events/v1"
)

const array = 0x40

// shown is the value of a row. Zero, missing and disconnected are three things.
func shown(batch *eventsv1.ValueBatch, row int) string {
	bits, kind := binary.LittleEndian.Uint64(batch.Data[8*row:]), batch.Kinds[row]
	raw := func() []byte { return batch.Heap[bits&math.MaxUint32:][:bits>>32] }
	text := ""
	switch kind := commonv1.ValueType(kind); {
	case batch.States[row] == byte(commonv1.ConnectionState_CONNECTION_STATE_NEVER_CONNECTED):
		return "never connected"
	case kind == 0:
		return "no value"
	case kind&array != 0:
		text = fmt.Sprintf("an array of %d bytes", len(raw()))
	case kind == commonv1.ValueType_VALUE_TYPE_STRING:
		text = fmt.Sprintf("%q", raw())
	case kind == commonv1.ValueType_VALUE_TYPE_FLOAT64:
		text = fmt.Sprint(math.Float64frombits(bits))
	case kind == commonv1.ValueType_VALUE_TYPE_FLOAT32:
		text = fmt.Sprint(math.Float32frombits(uint32(bits)))
	case kind == commonv1.ValueType_VALUE_TYPE_ENUM:
		text = fmt.Sprintf("state %d", bits)
	case kind >= commonv1.ValueType_VALUE_TYPE_UINT8 && kind <= commonv1.ValueType_VALUE_TYPE_UINT64:
		text = fmt.Sprint(bits)
	default:
		text = fmt.Sprint(int64(bits))
	}
	if batch.States[row] == byte(commonv1.ConnectionState_CONNECTION_STATE_DISCONNECTED) {
		return "disconnected, was " + text
	}
	return text
}
