// Reads values, and follows them, with nothing but the contracts in proto/.
//
//	go run . SERVER KEY NAME...
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	commonv1 "github.com/drey-controls/drey-go/common/v1"
	monitorv1 "github.com/drey-controls/drey-go/monitor/v1"
)

func main() {
	if len(os.Args) < 4 {
		log.Fatal("usage: client SERVER KEY NAME...")
	}
	// Loopback only: give grpc.WithTransportCredentials the site's certificates elsewhere.
	conn, err := grpc.NewClient(os.Args[1], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+os.Args[2])
	monitor := monitorv1.NewMonitorServiceClient(conn)
	selector := &commonv1.Selector{Names: os.Args[3:]}

	values, err := monitor.GetValues(ctx, &monitorv1.GetValuesRequest{Selector: selector})
	if err != nil {
		log.Fatal(err)
	}
	for {
		part, err := values.Recv()
		if err == io.EOF {
			break
		}
		if err != nil {
			log.Fatal(err)
		}
		for _, row := range part.Rows {
			fmt.Printf("value %s %v %s\n", row.Name, row.Setpoint.GetFloat64Value(), row.Setpoint.GetState())
		}
	}

	watch, err := monitor.WatchPvs(ctx, &monitorv1.WatchPvsRequest{Selector: selector})
	if err != nil {
		log.Fatal(err)
	}
	for {
		message, err := watch.Recv()
		if err != nil {
			log.Fatal(err)
		}
		if end := message.GetBaselineEnd(); end != nil {
			fmt.Println("watching; the token to come back with has", len(end.Token), "characters")
			return
		}
	}
}
