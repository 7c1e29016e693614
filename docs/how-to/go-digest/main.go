// Computes the digest of a plan from what it reads of it, and compares it with what the server says:
// whoever approves or executes a plan need not take the server's word for it. The recipe stands at the
// message Plan of the contracts.
//
//	go run . SERVER KEY PLAN
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"log"
	"math"
	"os"
	"sort"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	catalogv1 "github.com/drey-controls/drey-go/catalog/v1"
	commonv1 "github.com/drey-controls/drey-go/common/v1"
	restorev1 "github.com/drey-controls/drey-go/restore/v1"
)

const recipe = 3

// canonical collects the bytes of the digest.
type canonical struct{ bytes.Buffer }

// put writes numbers of fixed size, little-endian; truths are one byte.
func (c *canonical) put(numbers ...any) {
	for _, number := range numbers {
		if err := binary.Write(c, binary.LittleEndian, number); err != nil {
			log.Fatal(err)
		}
	}
}

func (c *canonical) text(texts ...string) {
	for _, text := range texts {
		c.put(uint32(len(text)))
		c.WriteString(text)
	}
}

// double has one NaN for all.
func (c *canonical) double(number float64) { c.put(doubleBits(number)) }

func doubleBits(number float64) uint64 {
	if math.IsNaN(number) {
		return 0x7ff8000000000000
	}
	return math.Float64bits(number)
}

func floatBits(number float32) uint32 {
	if number != number {
		return 0x7fc00000
	}
	return math.Float32bits(number)
}

// optional is NaN where there is no number.
func (c *canonical) optional(number *float64) {
	if number == nil {
		c.double(math.NaN())
	} else {
		c.double(*number)
	}
}

// cells writes a column of bytes: the length of each, then all.
func (c *canonical) cells(cells [][]byte) {
	for _, cell := range cells {
		c.put(uint32(len(cell)))
	}
	for _, cell := range cells {
		c.Write(cell)
	}
}

func (c *canonical) guard(guard *restorev1.Guard) { c.text(guard.Expression, guard.Description) }

func nanoseconds(at *timestamppb.Timestamp) int64 {
	return at.GetSeconds()*1e9 + int64(at.GetNanos())
}

func (c *canonical) plan(plan *restorev1.Plan, items int) {
	spec := plan.GetSpec()
	c.text("drey.restore.v1.Plan")
	c.put(uint32(recipe))
	c.text(plan.Id, plan.SnapshotId, plan.UndoesRestoreId, plan.GetActor().GetPrincipal(), spec.GetComment())
	c.put(nanoseconds(plan.CreateTime), nanoseconds(plan.ExpireTime))
	c.put(uint32(len(spec.GetGuards())))
	for _, guard := range spec.GetGuards() {
		c.guard(guard)
	}
	c.put(uint32(len(spec.GetGates())))
	for _, gate := range spec.GetGates() {
		c.put(gate.AfterStage)
		switch condition := gate.Condition.(type) {
		case *restorev1.StageGate_MaxFailed:
			c.put(uint8(1), condition.MaxFailed)
		case *restorev1.StageGate_MustHold:
			c.put(uint8(2))
			c.guard(condition.MustHold)
		default:
			c.put(uint8(0))
		}
	}
	if back := spec.GetRollback(); back != nil {
		most := int32(-1)
		if back.MaxFailed != nil {
			most = *back.MaxFailed
		}
		c.put(uint8(1), most, back.OnGuard)
	} else {
		c.put(uint8(0))
	}
	c.put(uint32(items))
}

func duration(time *durationpb.Duration) int64 {
	if time == nil {
		return -1
	}
	return time.Seconds*1e9 + int64(time.Nanos)
}

func policy(found *catalogv1.RestorePolicy) []byte {
	c := &canonical{}
	c.put(int32(found.GetCompletion()), duration(found.GetTimeout()), duration(found.GetSettle()))
	c.put(found != nil && found.Stage != nil, found.GetStage())
	c.text(found.GetDoneChannel())
	if found == nil {
		found = &catalogv1.RestorePolicy{}
	}
	c.optional(found.DoneValue)
	c.optional(found.RampRate)
	c.optional(found.RampStep)
	if found.Allowed != nil {
		c.double(found.Allowed.Low)
		c.double(found.Allowed.High)
	} else {
		c.double(math.NaN())
		c.double(math.NaN())
	}
	return c.Bytes()
}

func sources(found []*catalogv1.PolicySource) []byte {
	c := &canonical{}
	for _, each := range found {
		c.text(each.PolicyField)
		switch source := each.Source.(type) {
		case *catalogv1.PolicySource_Pv:
			c.put(uint8(2))
		case *catalogv1.PolicySource_Device:
			c.put(uint8(3))
			c.text(source.Device)
		case *catalogv1.PolicySource_Tag:
			c.put(uint8(4))
			c.text(source.Tag.Group, source.Tag.Tag)
		case *catalogv1.PolicySource_BuiltIn:
			c.put(uint8(5))
		default:
			log.Fatalf("the source of %s is one that this program does not know", each.PolicyField)
		}
	}
	return c.Bytes()
}

// datum is the data of a value: its type, the bits of a scalar, the bytes of what is none.
type datum struct {
	kind    uint8
	bits    uint64
	payload []byte
	label   string
}

func array[T, U any](kind uint8, elements []T, as func(T) U) datum {
	c := &canonical{}
	for _, element := range elements {
		c.put(as(element))
	}
	return datum{kind: kind | 64, payload: c.Bytes()}
}

func same[T any](element T) T { return element }

func data(value *commonv1.Value) datum {
	switch v := value.GetData().(type) {
	case *commonv1.Value_BoolValue:
		if v.BoolValue {
			return datum{kind: 1, bits: 1}
		}
		return datum{kind: 1}
	case *commonv1.Value_Int8Value:
		return datum{kind: 2, bits: uint64(int64(v.Int8Value))}
	case *commonv1.Value_Int16Value:
		return datum{kind: 3, bits: uint64(int64(v.Int16Value))}
	case *commonv1.Value_Int32Value:
		return datum{kind: 4, bits: uint64(int64(v.Int32Value))}
	case *commonv1.Value_Int64Value:
		return datum{kind: 5, bits: uint64(v.Int64Value)}
	case *commonv1.Value_Uint8Value:
		return datum{kind: 6, bits: uint64(v.Uint8Value)}
	case *commonv1.Value_Uint16Value:
		return datum{kind: 7, bits: uint64(v.Uint16Value)}
	case *commonv1.Value_Uint32Value:
		return datum{kind: 8, bits: uint64(v.Uint32Value)}
	case *commonv1.Value_Uint64Value:
		return datum{kind: 9, bits: v.Uint64Value}
	case *commonv1.Value_Float32Value:
		return datum{kind: 10, bits: uint64(floatBits(v.Float32Value))}
	case *commonv1.Value_Float64Value:
		return datum{kind: 11, bits: doubleBits(v.Float64Value)}
	case *commonv1.Value_EnumValue:
		return datum{kind: 12, bits: uint64(v.EnumValue.Index), label: v.EnumValue.Label}
	case *commonv1.Value_StringValue:
		return datum{kind: 13, payload: []byte(v.StringValue)}
	case *commonv1.Value_RawStringValue:
		return datum{kind: 13, payload: v.RawStringValue}
	case *commonv1.Value_BoolArray:
		return array(1, v.BoolArray.Elements, same[bool])
	case *commonv1.Value_Int8Array:
		return array(2, v.Int8Array.Elements, func(e int32) int8 { return int8(e) })
	case *commonv1.Value_Int16Array:
		return array(3, v.Int16Array.Elements, func(e int32) int16 { return int16(e) })
	case *commonv1.Value_Int32Array:
		return array(4, v.Int32Array.Elements, same[int32])
	case *commonv1.Value_Int64Array:
		return array(5, v.Int64Array.Elements, same[int64])
	case *commonv1.Value_Uint8Array:
		return datum{kind: 6 | 64, payload: v.Uint8Array}
	case *commonv1.Value_Uint16Array:
		return array(7, v.Uint16Array.Elements, func(e uint32) uint16 { return uint16(e) })
	case *commonv1.Value_Uint32Array:
		return array(8, v.Uint32Array.Elements, same[uint32])
	case *commonv1.Value_Uint64Array:
		return array(9, v.Uint64Array.Elements, same[uint64])
	case *commonv1.Value_Float32Array:
		return array(10, v.Float32Array.Elements, floatBits)
	case *commonv1.Value_Float64Array:
		return array(11, v.Float64Array.Elements, doubleBits)
	case *commonv1.Value_EnumArray:
		return array(12, v.EnumArray.Elements, func(e uint32) uint16 { return uint16(e) })
	case *commonv1.Value_StringArray:
		raws := v.StringArray.RawElements
		if len(raws) == 0 {
			for _, text := range v.StringArray.Elements {
				raws = append(raws, []byte(text))
			}
		}
		c := &canonical{}
		c.put(uint32(len(raws)))
		c.cells(raws)
		return datum{kind: 13 | 64, payload: c.Bytes()}
	}
	return datum{}
}

// values writes the columns of one value of each item; what is absent is zero in each of them.
func (c *canonical) values(items []*restorev1.PlanItem, get func(*restorev1.PlanItem) *commonv1.Value) {
	values := make([]*commonv1.Value, len(items))
	found := make([]datum, len(items))
	payloads, labels := make([][]byte, len(items)), make([][]byte, len(items))
	for i, item := range items {
		values[i] = get(item)
		if values[i].GetAlarmMessage() != "" || values[i] != nil && values[i].UserTag != nil {
			log.Fatalf("a value of %s has an alarm message or a user tag, which the digest leaves out", item.Name)
		}
		found[i] = data(values[i])
		if found[i].kind == 0 {
			values[i] = nil
		}
		payloads[i], labels[i] = found[i].payload, []byte(found[i].label)
		c.put(found[i].kind)
	}
	for _, column := range []func(*commonv1.Value) any{
		func(v *commonv1.Value) any { return uint8(v.GetState()) },
		func(v *commonv1.Value) any { return uint8(v.GetOrigin()) },
		func(v *commonv1.Value) any { return uint8(v.GetSeverity()) },
		func(v *commonv1.Value) any { return uint32(v.GetStatus()) },
		func(v *commonv1.Value) any { return v.GetSourceTimeNs() },
		func(v *commonv1.Value) any { return v.GetReceiveTimeNs() },
	} {
		for _, value := range values {
			c.put(column(value))
		}
	}
	for _, each := range found {
		c.put(each.bits)
	}
	c.cells(payloads)
	c.cells(labels)
}

func digest(plan *restorev1.Plan, items []*restorev1.PlanItem) string {
	sort.Slice(items, func(i, j int) bool { return items[i].Number < items[j].Number })
	c := &canonical{}
	c.plan(plan, len(items))
	each := func(write func(item *restorev1.PlanItem)) {
		for _, item := range items {
			write(item)
		}
	}
	cells := func(cell func(item *restorev1.PlanItem) []byte) {
		all := make([][]byte, len(items))
		for i, item := range items {
			all[i] = cell(item)
		}
		c.cells(all)
	}
	texts := func(texts []string) []byte {
		part := &canonical{}
		part.text(texts...)
		return part.Bytes()
	}
	each(func(item *restorev1.PlanItem) { c.put(item.Number) })
	cells(func(item *restorev1.PlanItem) []byte { return []byte(item.Name) })
	cells(func(item *restorev1.PlanItem) []byte { return []byte(item.Address) })
	cells(func(item *restorev1.PlanItem) []byte { return []byte(item.ReadbackAddress) })
	c.values(items, (*restorev1.PlanItem).GetCurrent)
	c.values(items, (*restorev1.PlanItem).GetStored)
	c.values(items, (*restorev1.PlanItem).GetTarget)
	c.values(items, (*restorev1.PlanItem).GetStoredReadback)
	each(func(item *restorev1.PlanItem) { c.optional(item.Delta) })
	each(func(item *restorev1.PlanItem) { c.optional(item.Deviation) })
	each(func(item *restorev1.PlanItem) { c.put(item.Stage) })
	each(func(item *restorev1.PlanItem) { c.put(uint8(item.Skip)) })
	each(func(item *restorev1.PlanItem) { c.double(item.GetTolerance().GetAbsolute()) })
	each(func(item *restorev1.PlanItem) { c.double(item.GetTolerance().GetRelative()) })
	each(func(item *restorev1.PlanItem) { c.double(item.GetReadbackTolerance().GetAbsolute()) })
	each(func(item *restorev1.PlanItem) { c.double(item.GetReadbackTolerance().GetRelative()) })
	cells(func(item *restorev1.PlanItem) []byte { return policy(item.Policy) })
	cells(func(item *restorev1.PlanItem) []byte {
		part := &canonical{}
		for _, step := range item.RampSteps {
			part.double(step)
		}
		return part.Bytes()
	})
	cells(func(item *restorev1.PlanItem) []byte { return texts(item.EnumLabels) })
	cells(func(item *restorev1.PlanItem) []byte { return texts(item.Warnings) })
	cells(func(item *restorev1.PlanItem) []byte { return sources(item.PolicySources) })
	cells(func(item *restorev1.PlanItem) []byte { return []byte(item.Record) })
	sum := sha256.Sum256(c.Bytes())
	return hex.EncodeToString(sum[:])
}

// read gets a plan and all its items.
func read(ctx context.Context, client restorev1.RestoreServiceClient, id string) (*restorev1.Plan, []*restorev1.PlanItem, error) {
	answer, err := client.GetPlan(ctx, &restorev1.GetPlanRequest{Id: id})
	if err != nil {
		return nil, nil, err
	}
	stream, err := client.ReadPlan(ctx, &restorev1.ReadPlanRequest{Id: id})
	if err != nil {
		return nil, nil, err
	}
	var items []*restorev1.PlanItem
	for {
		message, err := stream.Recv()
		if err == io.EOF {
			return answer.Plan, items, nil
		}
		if err != nil {
			return nil, nil, err
		}
		for _, item := range message.Items {
			last := len(items) - 1
			if last >= 0 && items[last].Number == item.Number {
				join(items[last].Current, item.Current)
				join(items[last].Stored, item.Stored)
				join(items[last].Target, item.Target)
				join(items[last].StoredReadback, item.StoredReadback)
			} else {
				items = append(items, item)
			}
		}
	}
}

// join adds a further part of a value that is too large for one message.
func join(whole, part *commonv1.Value) {
	switch v := part.GetData().(type) {
	case nil:
	case *commonv1.Value_StringValue:
		whole.Data.(*commonv1.Value_StringValue).StringValue += v.StringValue
	case *commonv1.Value_RawStringValue:
		held := whole.Data.(*commonv1.Value_RawStringValue)
		held.RawStringValue = append(held.RawStringValue, v.RawStringValue...)
	case *commonv1.Value_Uint8Array:
		held := whole.Data.(*commonv1.Value_Uint8Array)
		held.Uint8Array = append(held.Uint8Array, v.Uint8Array...)
	default:
		proto.Merge(whole, part) // elements are appended
	}
}

func main() {
	if len(os.Args) != 4 {
		log.Fatal("usage: digest SERVER KEY PLAN")
	}
	// Loopback only: give grpc.WithTransportCredentials the site's certificates elsewhere.
	conn, err := grpc.NewClient(os.Args[1], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+os.Args[2])
	plan, items, err := read(ctx, restorev1.NewRestoreServiceClient(conn), os.Args[3])
	if err != nil {
		log.Fatal(err)
	}
	if plan.DigestRecipe != recipe {
		log.Fatalf("the digest is of recipe %d, this program knows %d", plan.DigestRecipe, recipe)
	}
	found := digest(plan, items)
	if found != plan.Digest {
		log.Fatalf("the digest of what was read is %s, the server says %s", found, plan.Digest)
	}
	fmt.Println(found, "as the server says")
}
