package org.example;

import com.google.protobuf.Any;
import com.google.protobuf.ByteString;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.ErrorInfo;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusException;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.BlockingClientCall;
import io.grpc.stub.MetadataUtils;
import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.AbstractList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.function.Function;
import org.drey.common.v1.ConnectionState;
import org.drey.common.v1.Freshness;
import org.drey.common.v1.PvRow;
import org.drey.common.v1.Selector;
import org.drey.common.v1.Value;
import org.drey.monitor.v1.FreshnessChange;
import org.drey.monitor.v1.MonitorServiceGrpc;
import org.drey.monitor.v1.PvLeft;
import org.drey.monitor.v1.WatchPvsRequest;
import org.drey.monitor.v1.WatchPvsResponse;
import org.drey.monitor.v1.WatchSpec;

/**
 * Follows PVs, with nothing but the contracts in proto/, through lost connections and gateways that
 * stand still.
 */
public final class Watch {
  private static final long RETRY_MS = 500;
  private static final long SILENCE_S = 5;
  private static final Set<Status.Code> FINAL =
      Set.of(
          Status.Code.UNAUTHENTICATED,
          Status.Code.PERMISSION_DENIED,
          Status.Code.INVALID_ARGUMENT,
          Status.Code.NOT_FOUND,
          Status.Code.UNIMPLEMENTED);
  private static final PrintStream OUT =
      new PrintStream(new FileOutputStream(FileDescriptor.out), true, StandardCharsets.UTF_8);

  // --- a value as text ---

  private static String quoted(String text) {
    return '"' + text.replace("\\", "\\\\").replace("\"", "\\\"").replace("\n", "\\n") + '"';
  }

  /** Bytes that are not UTF-8, as escapes. */
  private static String quoted(ByteString bytes) {
    StringBuilder text = new StringBuilder();
    for (byte each : bytes) {
      boolean plain = each >= ' ' && each < 0x7f && each != '"' && each != '\\';
      text.append(plain ? String.valueOf((char) each) : String.format("\\x%02x", each));
    }
    return '"' + text.toString() + '"';
  }

  private static <T> String array(List<T> elements, Function<T, String> shown) {
    int count = elements.size();
    if (count <= 8) {
      return "[" + String.join(", ", elements.stream().map(shown).toList()) + "]";
    }
    String first = String.join(", ", elements.subList(0, 3).stream().map(shown).toList());
    String last = shown.apply(elements.get(count - 1));
    return "[" + first + ", … " + count + " in all, the last " + last + "]";
  }

  private static List<Integer> octets(ByteString bytes) {
    return new AbstractList<>() {
      @Override
      public Integer get(int index) {
        return bytes.byteAt(index) & 0xff;
      }

      @Override
      public int size() {
        return bytes.size();
      }
    };
  }

  /** Data of any type. Java has no unsigned numbers: what is one has to be shown as one. */
  private static String data(Value value) {
    return switch (value.getDataCase()) {
      case BOOL_VALUE -> String.valueOf(value.getBoolValue());
      case INT8_VALUE -> String.valueOf(value.getInt8Value());
      case INT16_VALUE -> String.valueOf(value.getInt16Value());
      case INT32_VALUE -> String.valueOf(value.getInt32Value());
      case INT64_VALUE -> String.valueOf(value.getInt64Value());
      case UINT8_VALUE -> String.valueOf(value.getUint8Value());
      case UINT16_VALUE -> String.valueOf(value.getUint16Value());
      case UINT32_VALUE -> Integer.toUnsignedString(value.getUint32Value());
      case UINT64_VALUE -> Long.toUnsignedString(value.getUint64Value());
      case FLOAT32_VALUE -> String.valueOf(value.getFloat32Value());
      case FLOAT64_VALUE -> String.valueOf(value.getFloat64Value());
      case STRING_VALUE -> quoted(value.getStringValue());
      case RAW_STRING_VALUE -> quoted(value.getRawStringValue());
      case ENUM_VALUE -> {
        var choice = value.getEnumValue();
        String index = Integer.toUnsignedString(choice.getIndex());
        yield choice.getLabel().isEmpty() ? "#" + index : choice.getLabel() + " (" + index + ")";
      }
      case BOOL_ARRAY -> array(value.getBoolArray().getElementsList(), String::valueOf);
      case INT8_ARRAY -> array(value.getInt8Array().getElementsList(), String::valueOf);
      case INT16_ARRAY -> array(value.getInt16Array().getElementsList(), String::valueOf);
      case INT32_ARRAY -> array(value.getInt32Array().getElementsList(), String::valueOf);
      case INT64_ARRAY -> array(value.getInt64Array().getElementsList(), String::valueOf);
      case UINT8_ARRAY -> array(octets(value.getUint8Array()), String::valueOf);
      case UINT16_ARRAY -> array(value.getUint16Array().getElementsList(), String::valueOf);
      case UINT32_ARRAY ->
          array(value.getUint32Array().getElementsList(), Integer::toUnsignedString);
      case UINT64_ARRAY -> array(value.getUint64Array().getElementsList(), Long::toUnsignedString);
      case FLOAT32_ARRAY -> array(value.getFloat32Array().getElementsList(), String::valueOf);
      case FLOAT64_ARRAY -> array(value.getFloat64Array().getElementsList(), String::valueOf);
      case ENUM_ARRAY -> array(value.getEnumArray().getElementsList(), Integer::toUnsignedString);
      case STRING_ARRAY ->
          value.getStringArray().getRawElementsCount() > 0
              ? array(value.getStringArray().getRawElementsList(), Watch::quoted)
              : array(value.getStringArray().getElementsList(), Watch::quoted);
      case UNSENT -> "cannot be sent: " + value.getUnsent().getMessage();
      default -> "of a type that this program is too old for";
    };
  }

  /** A value, or what is known instead of it. Zero, missing and disconnected are three things. */
  private static String text(Value value) {
    if (value.getState() == ConnectionState.CONNECTION_STATE_NEVER_CONNECTED) {
      return "never connected";
    }
    if (value.getDataCase() == Value.DataCase.DATA_NOT_SET) {
      return "no value";
    }
    if (value.getState() == ConnectionState.CONNECTION_STATE_DISCONNECTED) {
      return "disconnected, was " + data(value);
    }
    boolean stale = value.getFreshness() == Freshness.FRESHNESS_STALE;
    return stale ? data(value) + " (stale)" : data(value);
  }

  // --- large values come in parts ---

  /** How many elements are here; of strings they are bytes. */
  private static long length(Value value) {
    return switch (value.getDataCase()) {
      case STRING_VALUE -> value.getStringValueBytes().size();
      case RAW_STRING_VALUE -> value.getRawStringValue().size();
      case UINT8_ARRAY -> value.getUint8Array().size();
      case BOOL_ARRAY -> value.getBoolArray().getElementsCount();
      case INT8_ARRAY -> value.getInt8Array().getElementsCount();
      case INT16_ARRAY -> value.getInt16Array().getElementsCount();
      case INT32_ARRAY -> value.getInt32Array().getElementsCount();
      case INT64_ARRAY -> value.getInt64Array().getElementsCount();
      case UINT16_ARRAY -> value.getUint16Array().getElementsCount();
      case UINT32_ARRAY -> value.getUint32Array().getElementsCount();
      case UINT64_ARRAY -> value.getUint64Array().getElementsCount();
      case FLOAT32_ARRAY -> value.getFloat32Array().getElementsCount();
      case FLOAT64_ARRAY -> value.getFloat64Array().getElementsCount();
      case ENUM_ARRAY -> value.getEnumArray().getElementsCount();
      case STRING_ARRAY ->
          Math.max(
              value.getStringArray().getElementsCount(),
              value.getStringArray().getRawElementsCount());
      default -> 0;
    };
  }

  private static boolean isWhole(Value value) {
    return !value.hasPart() || length(value) == value.getPart().getTotalElements();
  }

  /** What is held of a value, with its next part. */
  private static Value joined(Value held, Value more) {
    Value.Builder whole = held.toBuilder();
    return switch (held.getDataCase()) {
      case STRING_VALUE ->
          whole.setStringValue(held.getStringValue() + more.getStringValue()).build();
      case RAW_STRING_VALUE ->
          whole.setRawStringValue(held.getRawStringValue().concat(more.getRawStringValue())).build();
      case UINT8_ARRAY ->
          whole.setUint8Array(held.getUint8Array().concat(more.getUint8Array())).build();
      // messages merge by appending what is repeated
      default -> whole.mergeFrom(more).build();
    };
  }

  /** What is held of a channel after a row. */
  private static Value replaced(Value held, Value sent) {
    return sent.hasPart() && sent.getPart().getFirstElement() > 0 ? joined(held, sent) : sent;
  }

  // --- what this client holds, and where it stands ---

  private final WatchSpec spec;
  private final Map<Long, PvRow> rows = new HashMap<>();
  private String token = "";

  private Watch(WatchSpec spec) {
    this.spec = spec;
  }

  /** Take rows: each holds channels that changed; absent means unchanged. */
  private void replace(List<PvRow> sent) {
    for (PvRow row : sent) {
      PvRow known = rows.getOrDefault(row.getNumber(), PvRow.getDefaultInstance());
      PvRow.Builder held = known.toBuilder().setName(row.getName());
      if (row.hasSetpoint()) {
        held.setSetpoint(replaced(known.getSetpoint(), row.getSetpoint()));
      }
      if (row.hasReadback()) {
        held.setReadback(replaced(known.getReadback(), row.getReadback()));
      }
      rows.put(row.getNumber(), held.build());
      if (isWhole(held.getSetpoint()) && isWhole(held.getReadback())) {
        String setpoint = held.hasSetpoint() ? " setpoint=" + text(held.getSetpoint()) : "";
        String readback = held.hasReadback() ? " readback=" + text(held.getReadback()) : "";
        OUT.println(held.getName() + setpoint + readback);
      }
    }
  }

  /** Mark how far values are to be believed: no value changes by it. */
  private void freshen(FreshnessChange change) {
    for (long number : change.getAll() ? List.copyOf(rows.keySet()) : change.getPvNumbersList()) {
      rows.computeIfPresent(
          number,
          (key, row) -> {
            PvRow.Builder held = row.toBuilder();
            if (row.hasSetpoint()) {
              held.getSetpointBuilder().setFreshness(change.getFreshness());
            }
            if (row.hasReadback()) {
              held.getReadbackBuilder().setFreshness(change.getFreshness());
            }
            return held.build();
          });
    }
    OUT.println(change.getFreshness() + " " + change.getReason());
  }

  /** Fold one message into the state. */
  private void take(WatchPvsResponse message) {
    switch (message.getPartCase()) {
      case BASELINE_BEGIN -> {
        if (!message.getBaselineBegin().getKeepsState()) {
          rows.clear();
        }
      }
      case BASELINE -> replace(message.getBaseline().getRowsList());
      case BASELINE_END -> {
        token = message.getBaselineEnd().getToken();
        OUT.println("holding " + rows.size() + " PVs");
      }
      case DIFF -> replace(message.getDiff().getRowsList());
      case CHECKPOINT -> token = message.getCheckpoint().getToken();
      case FRESHNESS -> freshen(message.getFreshness());
      case LEFT -> message.getLeft().getPvsList().stream().map(PvLeft::getNumber).forEach(rows::remove);
      case RESYNC_REQUIRED ->
          OUT.println("everything comes again: " + message.getResyncRequired().getReason());
      default -> {}
    }
  }

  /** Take messages until the connection is lost, or silent: a checkpoint is promised each second. */
  private void follow(String server, String key)
      throws StatusException, TimeoutException, InterruptedException {
    // A connection of its own each time: the one before may lead to what stands still.
    // Loopback only: TlsChannelCredentials with the site's certificates elsewhere.
    ManagedChannel channel =
        Grpc.newChannelBuilder(server, InsecureChannelCredentials.create()).build();
    Metadata headers = new Metadata();
    headers.put(
        Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER), "Bearer " + key);
    try {
      BlockingClientCall<?, WatchPvsResponse> call =
          MonitorServiceGrpc.newBlockingV2Stub(channel)
              .withInterceptors(MetadataUtils.newAttachHeadersInterceptor(headers))
              .watchPvs(WatchPvsRequest.newBuilder().setSpec(spec).setToken(token).build());
      WatchPvsResponse message;
      while ((message = call.read(SILENCE_S, TimeUnit.SECONDS)) != null) {
        take(message);
      }
    } finally {
      channel.shutdownNow();
    }
  }

  /** The reason of a refusal: branch on it, never on the text. */
  private static String reasonOf(StatusException error) throws InvalidProtocolBufferException {
    com.google.rpc.Status status = StatusProto.fromThrowable(error);
    for (Any detail : status == null ? List.<Any>of() : status.getDetailsList()) {
      if (detail.is(ErrorInfo.class)) {
        return detail.unpack(ErrorInfo.class).getReason();
      }
    }
    return "";
  }

  public static void main(String[] words) throws Exception {
    if (words.length < 3) {
      System.err.println("usage: Watch SERVER KEY NAME...");
      System.exit(2);
    }
    List<String> names = Arrays.asList(words).subList(2, words.length);
    Selector selector = Selector.newBuilder().addAllNames(names).build();
    Watch watch = new Watch(WatchSpec.newBuilder().setSelector(selector).build());
    while (true) {
      try {
        watch.follow(words[0], words[1]);
        OUT.println("lost: the stream ended");
      } catch (TimeoutException error) {
        OUT.println("lost: silent");
      } catch (StatusException error) {
        if (reasonOf(error).equals("TOKEN_UNKNOWN") && !watch.token.isEmpty()) {
          watch.token = ""; // of another version, perhaps: begin anew
        } else if (FINAL.contains(error.getStatus().getCode())) {
          System.err.println(error.getMessage());
          System.exit(1);
        }
        OUT.println("lost: " + error.getMessage());
      }
      Thread.sleep(RETRY_MS);
    }
  }
}
