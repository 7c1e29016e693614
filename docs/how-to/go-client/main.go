// Follows PVs, with nothing but the contracts in proto/, through lost connections and gateways that
// stand still.
//
//	go run . SERVER KEY NAME...
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"strconv"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	commonv1 "github.com/drey-controls/drey-go/common/v1"
	monitorv1 "github.com/drey-controls/drey-go/monitor/v1"
)

const (
	retry   = 500 * time.Millisecond
	silence = 5 * time.Second
)

// scalar is a number, a truth or a string.
func scalar(data any) string {
	switch v := data.(type) {
	case string:
		return strconv.Quote(v)
	case []byte:
		return strconv.Quote(string(v))
	case float32:
		return strconv.FormatFloat(float64(v), 'g', -1, 32)
	}
	return fmt.Sprint(data)
}

func array[T any](elements []T) string {
	shown, end := elements, "]"
	if n := len(elements); n > 8 {
		shown, end = elements[:3], fmt.Sprintf(", … %d in all, the last %s]", n, scalar(elements[n-1]))
	}
	texts := make([]string, len(shown))
	for i, element := range shown {
		texts[i] = scalar(element)
	}
	return "[" + strings.Join(texts, ", ") + end
}

// data is a value of any type, as text.
func data(value *commonv1.Value) string {
	switch v := value.Data.(type) {
	case *commonv1.Value_BoolValue:
		return scalar(v.BoolValue)
	case *commonv1.Value_Int8Value:
		return scalar(v.Int8Value)
	case *commonv1.Value_Int16Value:
		return scalar(v.Int16Value)
	case *commonv1.Value_Int32Value:
		return scalar(v.Int32Value)
	case *commonv1.Value_Int64Value:
		return scalar(v.Int64Value)
	case *commonv1.Value_Uint8Value:
		return scalar(v.Uint8Value)
	case *commonv1.Value_Uint16Value:
		return scalar(v.Uint16Value)
	case *commonv1.Value_Uint32Value:
		return scalar(v.Uint32Value)
	case *commonv1.Value_Uint64Value:
		return scalar(v.Uint64Value)
	case *commonv1.Value_Float32Value:
		return scalar(v.Float32Value)
	case *commonv1.Value_Float64Value:
		return scalar(v.Float64Value)
	case *commonv1.Value_StringValue:
		return scalar(v.StringValue)
	case *commonv1.Value_RawStringValue:
		return scalar(v.RawStringValue)
	case *commonv1.Value_EnumValue:
		if v.EnumValue.Label == "" {
			return fmt.Sprintf("#%d", v.EnumValue.Index)
		}
		return fmt.Sprintf("%s (%d)", v.EnumValue.Label, v.EnumValue.Index)
	case *commonv1.Value_BoolArray:
		return array(v.BoolArray.Elements)
	case *commonv1.Value_Int8Array:
		return array(v.Int8Array.Elements)
	case *commonv1.Value_Int16Array:
		return array(v.Int16Array.Elements)
	case *commonv1.Value_Int32Array:
		return array(v.Int32Array.Elements)
	case *commonv1.Value_Int64Array:
		return array(v.Int64Array.Elements)
	case *commonv1.Value_Uint8Array:
		return array(v.Uint8Array)
	case *commonv1.Value_Uint16Array:
		return array(v.Uint16Array.Elements)
	case *commonv1.Value_Uint32Array:
		return array(v.Uint32Array.Elements)
	case *commonv1.Value_Uint64Array:
		return array(v.Uint64Array.Elements)
	case *commonv1.Value_Float32Array:
		return array(v.Float32Array.Elements)
	case *commonv1.Value_Float64Array:
		return array(v.Float64Array.Elements)
	case *commonv1.Value_EnumArray:
		return array(v.EnumArray.Elements)
	case *commonv1.Value_StringArray:
		if len(v.StringArray.RawElements) > 0 {
			return array(v.StringArray.RawElements)
		}
		return array(v.StringArray.Elements)
	case *commonv1.Value_Unsent:
		return "cannot be sent: " + v.Unsent.Message
	}
	return "of a type that this program is too old for"
}

// text is a value, or what is known instead of it. Zero, missing and disconnected are three things.
func text(value *commonv1.Value) string {
	switch {
	case value.State == commonv1.ConnectionState_CONNECTION_STATE_NEVER_CONNECTED:
		return "never connected"
	case value.Data == nil:
		return "no value"
	case value.State == commonv1.ConnectionState_CONNECTION_STATE_DISCONNECTED:
		return "disconnected, was " + data(value)
	case value.Freshness == commonv1.Freshness_FRESHNESS_STALE:
		return data(value) + " (stale)"
	}
	return data(value)
}

// appendPart puts the next part of a large array or string to what is held of it.
func appendPart(held, more *commonv1.Value) {
	switch v := held.Data.(type) {
	case *commonv1.Value_StringValue:
		v.StringValue += more.GetStringValue()
	case *commonv1.Value_RawStringValue:
		v.RawStringValue = append(v.RawStringValue, more.GetRawStringValue()...)
	case *commonv1.Value_Uint8Array:
		v.Uint8Array = append(v.Uint8Array, more.GetUint8Array()...)
	default:
		// messages merge by appending what is repeated
		part := held.Part
		proto.Merge(held, more)
		held.Part = part
	}
}

// watch is what this client holds, and where it stands.
type watch struct {
	spec  *monitorv1.WatchSpec
	rows  map[uint64]*commonv1.PvRow
	token string
}

// replaced is what is held of a channel after a row: absent means unchanged.
func replaced(held, sent *commonv1.Value) *commonv1.Value {
	switch {
	case sent == nil:
		return held
	case sent.GetPart().GetFirstElement() > 0:
		appendPart(held, sent)
		return held
	}
	return sent
}

// replace takes rows: each holds channels that changed, or the next part of a large value.
func (w *watch) replace(rows []*commonv1.PvRow) {
	for _, row := range rows {
		held := w.rows[row.Number]
		if held == nil {
			held = &commonv1.PvRow{Name: row.Name, Number: row.Number}
			w.rows[row.Number] = held
		}
		held.Setpoint = replaced(held.Setpoint, row.Setpoint)
		held.Readback = replaced(held.Readback, row.Readback)
		if isWhole(held.Setpoint) && isWhole(held.Readback) {
			line := held.Name
			if held.Setpoint != nil {
				line += " setpoint=" + text(held.Setpoint)
			}
			if held.Readback != nil {
				line += " readback=" + text(held.Readback)
			}
			fmt.Println(line)
		}
	}
}

// isWhole says whether all parts of a value are here; those of strings count bytes.
func isWhole(value *commonv1.Value) bool {
	if value.GetPart() == nil {
		return true
	}
	return uint64(length(value)) == value.Part.TotalElements
}

func length(value *commonv1.Value) int {
	switch v := value.Data.(type) {
	case *commonv1.Value_StringValue:
		return len(v.StringValue)
	case *commonv1.Value_RawStringValue:
		return len(v.RawStringValue)
	case *commonv1.Value_Uint8Array:
		return len(v.Uint8Array)
	case *commonv1.Value_StringArray:
		return max(len(v.StringArray.Elements), len(v.StringArray.RawElements))
	case *commonv1.Value_BoolArray:
		return len(v.BoolArray.Elements)
	case *commonv1.Value_Int8Array:
		return len(v.Int8Array.Elements)
	case *commonv1.Value_Int16Array:
		return len(v.Int16Array.Elements)
	case *commonv1.Value_Int32Array:
		return len(v.Int32Array.Elements)
	case *commonv1.Value_Int64Array:
		return len(v.Int64Array.Elements)
	case *commonv1.Value_Uint16Array:
		return len(v.Uint16Array.Elements)
	case *commonv1.Value_Uint32Array:
		return len(v.Uint32Array.Elements)
	case *commonv1.Value_Uint64Array:
		return len(v.Uint64Array.Elements)
	case *commonv1.Value_Float32Array:
		return len(v.Float32Array.Elements)
	case *commonv1.Value_Float64Array:
		return len(v.Float64Array.Elements)
	case *commonv1.Value_EnumArray:
		return len(v.EnumArray.Elements)
	}
	return 0
}

// take folds one message into the state.
func (w *watch) take(message *monitorv1.WatchPvsResponse) {
	switch part := message.Part.(type) {
	case *monitorv1.WatchPvsResponse_BaselineBegin:
		if !part.BaselineBegin.KeepsState {
			w.rows = map[uint64]*commonv1.PvRow{}
		}
	case *monitorv1.WatchPvsResponse_Baseline:
		w.replace(part.Baseline.Rows)
	case *monitorv1.WatchPvsResponse_BaselineEnd:
		w.token = part.BaselineEnd.Token
		fmt.Printf("holding %d PVs\n", len(w.rows))
	case *monitorv1.WatchPvsResponse_Diff:
		w.replace(part.Diff.Rows)
	case *monitorv1.WatchPvsResponse_Checkpoint:
		w.token = part.Checkpoint.Token
	case *monitorv1.WatchPvsResponse_Freshness:
		w.freshen(part.Freshness)
	case *monitorv1.WatchPvsResponse_Left:
		for _, pv := range part.Left.Pvs {
			delete(w.rows, pv.Number)
		}
	case *monitorv1.WatchPvsResponse_ResyncRequired:
		fmt.Println("everything comes again:", part.ResyncRequired.Reason)
	}
}

// freshen marks how far values are to be believed: no value changes by it.
func (w *watch) freshen(change *monitorv1.FreshnessChange) {
	numbers := change.PvNumbers
	if change.All {
		for number := range w.rows {
			numbers = append(numbers, number)
		}
	}
	for _, number := range numbers {
		for _, value := range []*commonv1.Value{w.rows[number].GetSetpoint(), w.rows[number].GetReadback()} {
			if value != nil {
				value.Freshness = change.Freshness
			}
		}
	}
	fmt.Println(change.Freshness, change.Reason)
}

// follow takes messages until the connection is lost, or silent: a checkpoint is promised each second.
func (w *watch) follow(server, key string) error {
	// A connection of its own each time: the one before may lead to what stands still.
	// Loopback only: give grpc.WithTransportCredentials the site's certificates elsewhere.
	conn, err := grpc.NewClient(server, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	timer := time.AfterFunc(silence, cancel)
	defer timer.Stop()
	ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+key)
	request := &monitorv1.WatchPvsRequest{Spec: w.spec, Token: w.token}
	stream, err := monitorv1.NewMonitorServiceClient(conn).WatchPvs(ctx, request)
	if err != nil {
		return err
	}
	for {
		message, err := stream.Recv()
		if err != nil {
			return err
		}
		timer.Reset(silence)
		w.take(message)
	}
}

// reasonOf is the reason of a refusal: branch on it, never on the text.
func reasonOf(err error) string {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			return info.Reason
		}
	}
	return ""
}

func main() {
	if len(os.Args) < 4 {
		log.Fatal("usage: client SERVER KEY NAME...")
	}
	spec := &monitorv1.WatchSpec{Selector: &commonv1.Selector{Names: os.Args[3:]}}
	w := &watch{spec: spec, rows: map[uint64]*commonv1.PvRow{}}
	for {
		err := w.follow(os.Args[1], os.Args[2])
		if reasonOf(err) == "TOKEN_UNKNOWN" && w.token != "" {
			w.token = "" // of another version, perhaps: begin anew
		} else {
			switch status.Code(err) {
			case codes.Unauthenticated, codes.PermissionDenied, codes.InvalidArgument, codes.NotFound,
				codes.Unimplemented:
				log.Fatal(err)
			}
		}
		fmt.Println("lost:", err)
		time.Sleep(retry)
	}
}
