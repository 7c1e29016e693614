// Follows the values of all channels on NATS, written from proto/drey/events/v1 alone.
//
//	go run . NATS_URL NAMESPACE
package main

import (
	"encoding/binary"
	"fmt"
	"log"
	"math"
	"os"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/proto"

	commonv1 "github.com/drey-controls/drey-go/common/v1"
	eventsv1 "github.com/drey-controls/drey-go/events/v1"
)

const array = 0x40

// place is where a shard stands: the greatest epoch, and the last sequence that is whole.
type place struct{ epoch, sequence uint64 }

func main() {
	log.SetFlags(0)
	connection, err := nats.Connect(os.Args[1], nats.MaxReconnects(-1))
	if err != nil {
		log.Fatal(err)
	}
	messages := make(chan *nats.Msg, 4096)
	if _, err := connection.ChanSubscribe(os.Args[2]+".v1.values.*", messages); err != nil {
		log.Fatal(err)
	}
	if err := connection.Flush(); err != nil { // the server knows of it
		log.Fatal(err)
	}
	fmt.Println("following")
	places := map[uint32]place{}
	for message := range messages {
		batch := &eventsv1.ValueBatch{}
		if err := proto.Unmarshal(message.Data, batch); err != nil {
			log.Println("not a batch:", err)
			continue
		}
		last, known := places[batch.Shard]
		if batch.Epoch < last.epoch {
			continue // of an owner that was deposed
		}
		if known && batch.Part == 0 && (batch.Epoch != last.epoch || batch.Sequence != last.sequence+1) {
			fmt.Printf("gap in shard %d: read its pages in Redis\n", batch.Shard)
		}
		places[batch.Shard] = place{batch.Epoch, batch.Sequence}
		for row := range batch.Kinds {
			fmt.Println(binary.LittleEndian.Uint64(batch.Channels[8*row:]), shown(batch, row))
		}
	}
}

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
