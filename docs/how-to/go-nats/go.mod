module example.org/nats

go 1.24.0

require (
	github.com/drey-controls/drey-go v0.0.0
	github.com/nats-io/nats.go v1.43.0
	google.golang.org/protobuf v1.36.8
)

require (
	github.com/google/go-cmp v0.7.0 // indirect
	github.com/klauspost/compress v1.18.0 // indirect
	github.com/nats-io/nkeys v0.4.11 // indirect
	github.com/nats-io/nuid v1.0.1 // indirect
	golang.org/x/crypto v0.39.0 // indirect
	golang.org/x/sys v0.33.0 // indirect
)

replace github.com/drey-controls/drey-go => ./gen
