// Follows the values of all channels on NATS, written from proto/drey/events/v1 alone.
//
//	go run . NATS_URL NAMESPACE
package main

import (
	"encoding/binary"
	"fmt"
	"log"
	"os"

	eventsv1 "github.com/drey-controls/drey-go/events/v1"
	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/proto"
)

func main() {
	connection := must(nats.Connect(os.Args[1], nats.MaxReconnects(-1)))
	messages := make(chan *nats.Msg, 4096)
	must(connection.ChanSubscribe(os.Args[2]+".v1.values.*", messages))
	must(0, connection.Flush()) // the server knows of it
	fmt.Println("following")
	stand := map[uint32]*eventsv1.ValueBatch{} // the last batch of each shard
	for message := range messages {
		batch := &eventsv1.ValueBatch{}
		if err := proto.Unmarshal(message.Data, batch); err != nil {
			log.Println("not a batch:", err)
			continue
		}
		last, known := stand[batch.Shard]
		if known && batch.Epoch < last.Epoch {
			continue // of an owner that was deposed
		}
		if known && batch.Part == 0 && (batch.Epoch != last.Epoch || batch.Sequence != last.Sequence+1) {
			fmt.Printf("gap in shard %d: read its pages in Redis\n", batch.Shard)
		}
		stand[batch.Shard] = batch
		for row := range batch.Kinds {
			fmt.Println(binary.LittleEndian.Uint64(batch.Channels[8*row:]), shown(batch, row))
		}
	}
}

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}
