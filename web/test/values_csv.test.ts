import { expect, test } from "vitest";
import { create } from "@bufbuild/protobuf";
import { PvRowSchema } from "../gen/drey/common/v1/value_pb";
import { PvMetadataSchema } from "../gen/drey/snapshot/v1/snapshot_service_pb";
import { valuesCsv } from "../src/page/values_csv";

const time = { sourceTimeNs: 1_700_000_000_123_456_789n, state: 3, severity: 2 };

test("what others wrote is no formula, and a number is one", () => {
  const rows = [
    create(PvRowSchema, {
      number: "7",
      name: "=HYPERLINK(1)",
      setpoint: { data: { case: "stringValue", value: "@SUM(1)" }, ...time },
      readback: { data: { case: "float64Array", value: { elements: [-1, NaN, -Infinity] } }, ...time },
    }),
    create(PvRowSchema, { number: "8", name: "-A:B", setpoint: { data: { case: "float64Value", value: -1.5 }, ...time } }),
  ];
  const metadata = new Map([["7", create(PvMetadataSchema, { number: "7", device: "+1+1", setpoint: { units: "=cmd|' /C calc'!A0" } })]]);
  const [, , first, second] = valuesCsv(rows, metadata);
  expect(first).toMatch(/^'=HYPERLINK\(1\),7,'\+1\+1,'@SUM\(1\),'=cmd\|' \/C calc'!A0,/);
  expect(first).toContain(",-1 NaN -Infinity,");
  expect(second).toMatch(/^'-A:B,8,,-1\.5,/);
});

test("a line for each PV, with all digits, all elements and any text", () => {
  const rows = [
    create(PvRowSchema, {
      number: "7",
      name: 'Größe "été", 夜班',
      setpoint: { data: { case: "float64Value", value: 0.1 + 0.2 }, ...time },
      readback: { data: { case: "float64Array", value: { elements: [1, -0, NaN, Infinity, 5, 6, 7, 8] } }, ...time },
    }),
    create(PvRowSchema, { number: "8", name: "B", readback: { data: { case: "enumValue", value: { index: 1, label: "" } }, ...time } }),
    create(PvRowSchema, { number: "9", name: "C", setpoint: { state: 1 }, readback: { data: { case: "stringArray", value: { elements: ["a b", 'c"'] } }, ...time } }),
  ];
  const metadata = new Map([
    ["7", create(PvMetadataSchema, { number: "7", device: "D,1", setpoint: { units: "µA", address: "X:SP" } })],
    ["8", create(PvMetadataSchema, { number: "8", readback: { enumLabels: ["Off", "On"] } })],
  ]);
  const [mark, head, ...lines] = valuesCsv(rows, metadata);
  expect(mark).toBe("\ufeff");
  expect(head).toMatch(/^name,number,device,setpoint_value,/);
  expect(lines).toHaveLength(3);
  expect(lines[0]).toBe(
    '"Größe ""été"", 夜班",7,"D,1",0.30000000000000004,µA,MINOR,CONNECTED,1700000000123456789,X:SP,' +
      "1 -0 NaN Infinity 5 6 7 8,,MINOR,CONNECTED,1700000000123456789,\r\n",
  );
  expect(lines[1]).toContain(",On,,MINOR,CONNECTED,");
  expect(lines[2]).toContain('C,9,,,,,NEVER_CONNECTED,,,"""a b"" ""c\\""""",');
});
