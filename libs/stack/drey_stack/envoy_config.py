"""The configuration of Envoy as a document: what is served under which path, and within limits."""

from __future__ import annotations

import hashlib
import socket
import ssl
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.rpc import status_pb2
from google.rpc.error_details_pb2 import ErrorInfo

from drey_stack.page_files import PageFile

GATEWAY = "gateway"
MAX_BODY_BYTES = 4 << 20
"""Of a request: what the gateway takes of a message."""
_MAX_ANSWER_BYTES = 32 << 20
"""Of an answer that is no stream, as JSON: 4 MiB of a message become several times that."""
_MAX_CONNECTIONS = 4096
_REQUEST_TIMEOUT_S = 120.0
"""For a whole request to arrive: what comes a byte at a time holds a connection no longer."""
_WINDOW_BYTES = 65_536
"""Read ahead of a client. The gateway merges what a slow one misses, once nothing moves."""
_SENT_BYTES = 4 * _WINDOW_BYTES
_HTTP = "type.googleapis.com/envoy.extensions.filters.http"
_TRANSPORT = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3"
_GRPC_HEADERS = ("grpc-status", "grpc-message", "grpc-status-details-bin")
_GRPC_FORMS = r"application/grpc(-web(-text)?)?(\+proto)?(\s*;.*)?"
"""What the gateway reads. With another one it would end the connection, as if it were away."""
_NOT_OF_REST = ["grpc-timeout"]
"""What only gRPC itself answers when it is wrong, without a reason."""
PROXY_HEADER = "x-drey-proxy"
_BROWSER_HEADERS = (
    "authorization",
    "content-type",
    "grpc-timeout",
    "x-grpc-web",
    "x-user-agent",
)
_SECURITY_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
_SAID = "%LOCAL_REPLY_BODY% [%RESPONSE_CODE_DETAILS%]"
"""What Envoy says, which may be nothing, and what it calls it."""
_REFUSALS = (
    # HTTP status, gRPC code, reason, text
    (400, 3, "MALFORMED_MESSAGE", _SAID),
    (403, 12, "UNKNOWN_METHOD", "a connection is not upgraded here"),
    (404, 12, "UNKNOWN_METHOD", "no method has this path and verb; /openapi.json lists them"),
    (408, 4, "DEADLINE_EXCEEDED", "the request did not arrive in time"),
    (413, 8, "MESSAGE_TOO_LARGE", "the request is larger than {limit} bytes"),
    (426, 3, "MALFORMED_MESSAGE", "HTTP/1.1 or HTTP/2 is needed"),
    (431, 8, "MESSAGE_TOO_LARGE", "address and headers are at most 32 KiB, in 100 headers"),
    (501, 3, "MALFORMED_MESSAGE", _SAID),
    (503, 14, "UPSTREAM_UNAVAILABLE", "the gateway does not answer; try again in a moment"),
)
_OTHER_REFUSALS = (
    (500, 14, "UPSTREAM_UNAVAILABLE", _SAID),
    (400, 3, "MALFORMED_MESSAGE", _SAID),
)
"""Said by Envoy itself, in the shape in which the gateway says its own; these of what is above."""


@dataclass(frozen=True)
class HttpOptions:
    """What is served over HTTP, and to whom.

    `listen`: IP:PORT; empty takes a free port of 127.0.0.1, the same one at the next start.
    `origins`: other sites whose pages may call, as `https://screens.example.org`; `*` is all.
    `certificate`, `key`: PEM files by which it speaks TLS, and HTTP/2 with it. `allow_insecure`:
    beyond loopback without them.
    """

    listen: str = ""
    origins: Sequence[str] = ()
    certificate: Path | None = None
    key: Path | None = None
    allow_insecure: bool = False
    max_body_bytes: int = MAX_BODY_BYTES
    max_connections: int = _MAX_CONNECTIONS
    request_timeout_s: float = _REQUEST_TIMEOUT_S


@dataclass(frozen=True)
class Upstream:
    """The gateway, and by what it is believed where it speaks TLS.

    `certificate`: PEM file of its very certificate; else `authority`: PEM file of who signed it,
    for the name `host`. `secret`: by which it believes us for whom we speak; empty: it does not.
    """

    host: str
    port: int
    certificate: Path | None = None
    authority: Path | None = None
    secret: str = field(default="", repr=False)


@dataclass(frozen=True)
class Contracts:
    """What is served: the services, and files that describe them.

    `descriptors`: a set of all their messages; `strict_json`: a program of Lua that refuses what
    they do not allow; `openapi`: the document for those who write clients.
    """

    services: Sequence[str]
    descriptors: Path
    strict_json: Path
    openapi: Path


def bootstrap_config(
    address: tuple[str, int],
    admin: Path,
    upstream: Upstream,
    options: HttpOptions,
    contracts: Contracts,
    page: Sequence[PageFile],
) -> dict[str, Any]:
    """The whole of it. `admin`: Unix socket that tells whether it is ready."""
    connections = {
        "@type": "type.googleapis.com/envoy.extensions.resource_monitors"
        ".downstream_connections.v3.DownstreamConnectionsConfig",
        "max_active_downstream_connections": options.max_connections,
    }
    monitor = "envoy.resource_monitors.global_downstream_max_connections"
    return {
        "node": {"id": "drey", "cluster": "drey"},
        "admin": {"address": {"pipe": {"path": str(admin), "mode": 0o600}}},
        "overload_manager": {"resource_monitors": [{"name": monitor, "typed_config": connections}]},
        "static_resources": {
            "listeners": [_listener_config(address, options, contracts, page, upstream.secret)],
            "clusters": [_cluster_config(upstream)],
        },
    }


def _listener_config(
    address: tuple[str, int],
    options: HttpOptions,
    contracts: Contracts,
    page: Sequence[PageFile],
    secret: str,
) -> dict[str, Any]:
    manager = _connection_manager(options, contracts, page, secret)
    host, port = address
    chain: dict[str, Any] = {
        "filters": [
            {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
        ]
    }
    if options.certificate is not None:
        chain["transport_socket"] = _downstream_tls(options)
    return {
        "name": "http",
        "address": {"socket_address": {"address": host, "port_value": port}},
        "enable_reuse_port": False,
        "per_connection_buffer_limit_bytes": _WINDOW_BYTES,
        # the kernel would take megabytes for a client that does not read
        "socket_options": [
            {
                "description": "bytes on their way to a client",
                "level": socket.SOL_SOCKET,
                "name": socket.SO_SNDBUF,
                "int_value": _SENT_BYTES,
            }
        ],
        "filter_chains": [chain],
    }


def _connection_manager(
    options: HttpOptions, contracts: Contracts, page: Sequence[PageFile], secret: str
) -> dict[str, Any]:
    return {
        "@type": "type.googleapis.com/envoy.extensions.filters.network"
        ".http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "http",
        "codec_type": "AUTO",
        "server_name": "drey",
        "use_remote_address": True,
        "normalize_path": True,
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
        "max_request_headers_kb": 32,  # the gateway takes more
        "request_headers_timeout": "10s",
        "request_timeout": f"{options.request_timeout_s}s",
        # every stream of Drey has a sign of life within 15 s
        "stream_idle_timeout": "300s",
        # of a connection without a stream: what was not read of the last is held until then
        "common_http_protocol_options": {"idle_timeout": "60s", "max_headers_count": 100},
        # the status of a stream that began well comes at its end
        "http_protocol_options": {"enable_trailers": True},
        "http2_protocol_options": {
            "max_concurrent_streams": 100,
            "initial_stream_window_size": _WINDOW_BYTES,
            "initial_connection_window_size": 1 << 20,
        },
        "local_reply_config": {
            "mappers": [
                *_grpc_refusals(options),
                _strict_refusal(),
                *(_refusal_route(*row, options) for row in _REFUSALS),
                *(_refusal_route(*row, options, op="GE") for row in _OTHER_REFUSALS),
            ]
        },
        "http_filters": [
            _filter_config("compressor", _compressor_filter()),
            _filter_config("cors", {"@type": f"{_HTTP}.cors.v3.Cors"}),
            _filter_config("health_check", _health_filter()),
            _filter_config("grpc_web", {"@type": f"{_HTTP}.grpc_web.v3.GrpcWeb"}),
            *(
                _filter_config(name, config)
                for name, config in _for_rest(contracts, options).items()
            ),
            _filter_config("router", {"@type": f"{_HTTP}.router.v3.Router"}),
        ],
        "route_config": _route_config(options, contracts, page, secret),
    }


def _route_config(
    options: HttpOptions, contracts: Contracts, page: Sequence[PageFile], secret: str
) -> dict[str, Any]:
    return {
        "name": "drey",
        "max_direct_response_body_size_bytes": 16 << 20,
        # what a client sends under these names is overwritten; Envoy itself would name a
        # client at 127.0.0.1 by another address of the machine
        "request_headers_to_add": [
            _header_option(PROXY_HEADER, secret),
            _header_option("x-forwarded-for", "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%"),
        ]
        if secret
        else [],
        # the page's own headers hold against those of all answers
        "most_specific_header_mutations_wins": True,
        "virtual_hosts": [_virtual_host(options, contracts, page)],
    }


def _filter_config(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": f"envoy.filters.http.{name}", "typed_config": config}


def _compressor_filter() -> dict[str, Any]:
    """Of the page's files and of answers in JSON, for who accepts it. Streams are left as they are:
    their messages are small, and have to come at once."""
    gzip = "type.googleapis.com/envoy.extensions.compression.gzip.compressor.v3.Gzip"
    types = ("application/json", "image/svg+xml", "text/html", "text/css", "text/javascript")
    return {
        "@type": f"{_HTTP}.compressor.v3.Compressor",
        "compressor_library": {"name": "gzip", "typed_config": {"@type": gzip}},
        "response_direction_config": {
            "common_config": {
                "min_content_length": 1000,
                # of the type alone, or with its character set behind it
                "content_type_matcher": [{"prefix": each} for each in types],
            },
        },
    }


def _health_filter() -> dict[str, Any]:
    """`/healthz`: 200 while the gateway answers its health check, else 503."""
    return {
        "@type": f"{_HTTP}.health_check.v3.HealthCheck",
        "pass_through_mode": False,
        "headers": [{"name": ":path", "string_match": {"exact": "/healthz"}}],
        "cluster_min_healthy_percentages": {GATEWAY: {"value": 100}},
    }


def _for_rest(contracts: Contracts, options: HttpOptions) -> dict[str, dict[str, Any]]:
    """What a request under `/v1/` goes through, in this order; the other paths leave it out."""
    return {
        "buffer": {
            "@type": f"{_HTTP}.buffer.v3.Buffer",
            "max_request_bytes": options.max_body_bytes,
        },
        "lua": {
            "@type": f"{_HTTP}.lua.v3.Lua",
            "default_source_code": {"filename": str(contracts.strict_json)},
        },
        "grpc_json_transcoder": _transcoder_filter(contracts, options, "stream_newline_delimited"),
    }


_NOT_REST: dict[str, Any] = {
    "envoy.filters.http.buffer": {"@type": f"{_HTTP}.buffer.v3.BufferPerRoute", "disabled": True},
    "envoy.filters.http.lua": {"@type": f"{_HTTP}.lua.v3.LuaPerRoute", "disabled": True},
}


def _transcoder_filter(contracts: Contracts, options: HttpOptions, streams: str) -> dict[str, Any]:
    return {
        "@type": f"{_HTTP}.grpc_json_transcoder.v3.GrpcJsonTranscoder",
        "proto_descriptor": str(contracts.descriptors),
        "services": list(contracts.services),
        "print_options": {streams: True, "always_print_primitive_fields": True},
        "convert_grpc_status": True,
        # the other filters stay what they are for the path that was asked for
        "match_incoming_request_route": True,
        "request_validation_options": {
            "reject_unknown_query_parameters": True,
            "reject_binding_body_field_collisions": True,
        },
        "max_request_body_size": options.max_body_bytes,
        "max_response_body_size": _MAX_ANSWER_BYTES,
    }


def _virtual_host(
    options: HttpOptions, contracts: Contracts, page: Sequence[PageFile]
) -> dict[str, Any]:
    events = _transcoder_filter(contracts, options, "stream_sse_style_delimited")
    events_wanted = {"name": "accept", "string_match": {"contains": "text/event-stream"}}
    grpc = [
        {"name": "content-type", "string_match": {"safe_regex": {"regex": _GRPC_FORMS}}},
        {"name": ":method", "string_match": {"exact": "POST"}},
    ]
    preflight = [
        {"name": ":method", "string_match": {"exact": "OPTIONS"}},
        {"name": "origin", "present_match": True},
        {"name": "access-control-request-method", "present_match": True},
    ]
    # CORS is answered for routes to a cluster only; a path of /v1/ that is none goes no further
    # than the program that knows them all
    calls = {"cluster": GATEWAY, "timeout": "0s"}
    return {
        "name": "drey",
        "domains": ["*"],
        "response_headers_to_add": [_header_option(*each) for each in _SECURITY_HEADERS.items()],
        "typed_per_filter_config": {"envoy.filters.http.cors": _cors_policy(options)},
        "routes": [
            {
                "match": {"prefix": "/", "headers": preflight},
                "route": calls,
                "typed_per_filter_config": _NOT_REST,
            },
            *(
                {
                    "match": {"prefix": f"/{service}/", "headers": grpc},
                    "route": calls,
                    "typed_per_filter_config": _NOT_REST,
                }
                for service in (*contracts.services, "grpc.health.v1.Health")
            ),
            {
                "match": {"prefix": "/v1/", "headers": [events_wanted]},
                "route": calls,
                "request_headers_to_remove": _NOT_OF_REST,
                "typed_per_filter_config": {"envoy.filters.http.grpc_json_transcoder": events},
            },
            {
                "match": {"prefix": "/v1/"},
                "route": calls,
                "request_headers_to_remove": _NOT_OF_REST,
            },
            _file_route("/openapi.json", contracts.openapi, {"content-type": "application/json"}),
            *(_file_route(each.path, each.file, each.headers) for each in page),
            {
                "match": {"prefix": "/"},
                "direct_response": {"status": 404},
                "typed_per_filter_config": _NOT_REST,
            },
        ],
    }


def _file_route(path: str, file: Path, headers: Mapping[str, str]) -> dict[str, Any]:
    return {
        "match": {
            "path": path,
            "headers": [{"name": ":method", "string_match": {"safe_regex": {"regex": "GET|HEAD"}}}],
        },
        "direct_response": {"status": 200, "body": {"filename": str(file)}},
        "response_headers_to_add": [_header_option(*each) for each in headers.items()],
        "typed_per_filter_config": _NOT_REST,
    }


def _header_option(name: str, value: str) -> dict[str, Any]:
    action = "OVERWRITE_IF_EXISTS_OR_ADD"
    return {"header": {"key": name, "value": value}, "append_action": action}


def _cors_policy(options: HttpOptions) -> dict[str, Any]:
    def matcher(origin: str) -> dict[str, Any]:
        return {"safe_regex": {"regex": ".*"}} if origin == "*" else {"exact": origin}

    return {
        "@type": f"{_HTTP}.cors.v3.CorsPolicy",
        "allow_origin_string_match": [matcher(origin) for origin in options.origins],
        "allow_methods": "GET, POST, PATCH, DELETE",
        "allow_headers": ", ".join(_BROWSER_HEADERS),
        "expose_headers": ", ".join(_GRPC_HEADERS),
        "max_age": "7200",
        "forward_not_matching_preflights": False,
    }


def _grpc_refusals(options: HttpOptions) -> list[dict[str, Any]]:
    """Refusals of gRPC-Web calls: a text and details in the headers, as the gateway sends them."""
    headers = [
        {"name": "content-type", "string_match": {"prefix": "application/grpc"}},
        # that of REST has become one of gRPC, and this is what it was
        {"name": "x-envoy-original-path", "present_match": True, "invert_match": True},
    ]
    is_grpc = [{"header_filter": {"header": header}} for header in headers]
    refusals = []
    for op, rows in (("EQ", _REFUSALS), ("GE", _OTHER_REFUSALS)):
        for status, code, reason, text in rows:
            details = status_pb2.Status(code=code)
            details.details.add().Pack(ErrorInfo(reason=reason, domain="drey"))
            encoded = b64encode(details.SerializeToString()).decode().rstrip("=")
            filters = [*is_grpc, _has_status(status, op)]
            text_format = {"inline_string": text.format(limit=options.max_body_bytes)}
            refusals.append(
                {
                    "filter": {"and_filter": {"filters": filters}},
                    "body_format_override": {"text_format_source": text_format},
                    "headers_to_add": [_header_option("grpc-status-details-bin", encoded)],
                }
            )
    return refusals


def _refusal_route(
    status: int, code: int, reason: str, text: str, options: HttpOptions, *, op: str = "EQ"
) -> dict[str, Any]:
    return {
        "filter": _has_status(status, op),
        **_error_body(code, text.format(limit=options.max_body_bytes), reason, {}),
    }


def _has_status(status: int, op: str) -> dict[str, Any]:
    compared = {"default_value": status, "runtime_key": f"drey.refusal.{op}{status}"}
    return {"status_code_filter": {"comparison": {"op": op, "value": compared}}}


def _strict_refusal() -> dict[str, Any]:
    """What `strict_json.lua` refuses; it notes the reason and the field."""
    noted = {
        "filter": "drey",
        "path": [{"key": "field"}],
        "value": {"string_match": {"safe_regex": {"regex": ".+"}}},
    }
    field = "%DYNAMIC_METADATA(drey:field)%"
    return {
        "filter": {"metadata_filter": {"matcher": noted, "match_if_key_not_found": False}},
        **_error_body(
            3,
            "%LOCAL_REPLY_BODY%",
            "%DYNAMIC_METADATA(drey:reason)%",
            {"field": field},
            {
                "@type": "type.googleapis.com/google.rpc.BadRequest",
                "fieldViolations": [{"field": field, "description": "%LOCAL_REPLY_BODY%"}],
            },
        ),
    }


def _error_body(
    code: int, text: str, reason: str, metadata: Mapping[str, str], *more: Mapping[str, Any]
) -> dict[str, Any]:
    """A `google.rpc.Status` as JSON."""
    info = {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": reason,
        "domain": "drey",
        "metadata": metadata,
    }
    body = {"code": code, "message": text, "details": [info, *more]}
    return {"body_format_override": {"json_format": body, "content_type": "application/json"}}


def _downstream_tls(options: HttpOptions) -> dict[str, Any]:
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": f"{_TRANSPORT}.DownstreamTlsContext",
            "common_tls_context": {
                "alpn_protocols": ["h2", "http/1.1"],
                "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
                "tls_certificates": [
                    {
                        "certificate_chain": {"filename": str(options.certificate)},
                        "private_key": {"filename": str(options.key)},
                    }
                ],
            },
        },
    }


def _cluster_config(upstream: Upstream) -> dict[str, Any]:
    endpoint = {"socket_address": {"address": upstream.host, "port_value": upstream.port}}
    http2 = {
        # A connection for each call at a time: the gateway closes that of a client that does not
        # read, and no other client is to be behind it.
        "max_concurrent_streams": 1,
        "initial_stream_window_size": _WINDOW_BYTES,
        "initial_connection_window_size": _WINDOW_BYTES,
    }
    options = {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": http2},
    }
    limits = {
        "max_connections": _MAX_CONNECTIONS,
        "max_pending_requests": _MAX_CONNECTIONS,
        "max_requests": _MAX_CONNECTIONS,
    }
    cluster: dict[str, Any] = {
        "name": GATEWAY,
        "type": "STRICT_DNS",
        # where a name has addresses of both kinds, many a server listens at those of the old alone
        "dns_lookup_family": "V4_PREFERRED",
        "connect_timeout": "2s",
        "per_connection_buffer_limit_bytes": _WINDOW_BYTES,
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options
        },
        "circuit_breakers": {"thresholds": [limits]},
        # what cannot be reached is tried all the same, so that its return is not missed
        "common_lb_config": {"healthy_panic_threshold": {"value": 100}},
        "health_checks": [
            {
                "timeout": "2s",
                "interval": "1s",
                "no_traffic_interval": "1s",
                "unhealthy_threshold": 1,
                "healthy_threshold": 1,
                "grpc_health_check": {},
            }
        ],
        "load_assignment": {
            "cluster_name": GATEWAY,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": endpoint}}]}],
        },
    }
    validation = _upstream_validation(upstream)
    if validation is not None:
        cluster["transport_socket"] = {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": f"{_TRANSPORT}.UpstreamTlsContext",
                "sni": upstream.host,
                "common_tls_context": {
                    "alpn_protocols": ["h2"],
                    "validation_context": validation,
                },
            },
        }
    return cluster


def _upstream_validation(upstream: Upstream) -> dict[str, Any] | None:
    if upstream.certificate is not None:
        # the very certificate, whoever signed it and whatever name is in it
        own = ssl.PEM_cert_to_DER_cert(_first_certificate(upstream.certificate))
        return {"verify_certificate_hash": [hashlib.sha256(own).hexdigest()]}
    if upstream.authority is not None:
        name = {"san_type": "DNS", "matcher": {"exact": upstream.host}}
        return {
            "trusted_ca": {"filename": str(upstream.authority)},
            "match_typed_subject_alt_names": [name],
        }
    return None


def _first_certificate(path: Path) -> str:
    """A server's own certificate stands first, those of its signers follow."""
    end = "-----END CERTIFICATE-----"
    return path.read_text().partition(end)[0] + end
