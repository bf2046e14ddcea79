package dwcp

// Request is the argument of both workflows. Leave MigrationID empty to have the run's id serve.
type Request struct {
	SchemaVersion   int      `json:"schemaVersion"`
	VMID            string   `json:"vmId"`
	SourceHost      string   `json:"sourceHost"`
	DestinationHost string   `json:"destinationHost"`
	MigrationID     string   `json:"migrationId,omitempty"`
	Options         *Options `json:"options,omitempty"`
	// Authorisation is set by the client: the same, signed.
	Authorisation string `json:"authorisation,omitempty"`
}

// Options override the defaults of docs/configuration.md; nil leaves the default. Rates are bytes a second.
type Options struct {
	EnableDWCP         *bool    `json:"enableDwcp,omitempty"`
	EnableFallback     *bool    `json:"enableFallback,omitempty"`
	MinStreams         *int     `json:"minStreams,omitempty"`
	MaxStreams         *int     `json:"maxStreams,omitempty"`
	InitialStreams     *int     `json:"initialStreams,omitempty"`
	EnableDelta        *bool    `json:"enableDelta,omitempty"`
	DeltaThreshold     *float64 `json:"deltaThreshold,omitempty"`
	EnableDictionary   *bool    `json:"enableDictionary,omitempty"`
	EnableCompression  *bool    `json:"enableCompression,omitempty"`
	EnableDeltaSync    *bool    `json:"enableDeltaSync,omitempty"`
	TargetSpeedup      *float64 `json:"targetSpeedup,omitempty"`
	TargetTransferRate *float64 `json:"targetTransferRate,omitempty"`
	MaxDowntimeMs      *int64   `json:"maxDowntimeMs,omitempty"`
	BandwidthLimit     *float64 `json:"bandwidthLimit,omitempty"`
	MemoryIterations   *int     `json:"memoryIterations,omitempty"`
	AutoConverge       *bool    `json:"autoConverge,omitempty"`
	DirtyPageThreshold *int     `json:"dirtyPageThreshold,omitempty"`
	Priority           *int     `json:"priority,omitempty"`
	DiskMap            *string  `json:"diskMap,omitempty"`
	OverwriteDisks     *bool    `json:"overwriteDisks,omitempty"`
	Force              *bool    `json:"force,omitempty"`
}

// Result is what a completed migration returns.
type Result struct {
	MigrationID     string        `json:"migrationId"`
	VMID            string        `json:"vmId"`
	SourceHost      string        `json:"sourceHost"`
	DestinationHost string        `json:"destinationHost"`
	Outcome         string        `json:"outcome"`
	Path            string        `json:"path"`
	FallbackReason  *ErrorReport  `json:"fallbackReason,omitempty"`
	Tier            string        `json:"tier,omitempty"`
	Link            *Link         `json:"link,omitempty"`
	Plan            *Plan         `json:"plan,omitempty"`
	Images          []ImageResult `json:"images"`
	Guest           *GuestResult  `json:"guest,omitempty"`
	// Consoles says where the guest's are at the destination.
	Consoles     []GuestConsole `json:"consoles,omitempty"`
	TotalSeconds float64        `json:"totalSeconds"`
	TotalBytes   int64          `json:"totalBytes"`
	LinkBytes    int64          `json:"linkBytes"`
	Ratio        float64        `json:"ratio"`
	Speedup      float64        `json:"speedup"`
	Goals        Goals          `json:"goals"`
}

// Link is the path as it was measured.
type Link struct {
	RTTMs                   float64  `json:"rttMs"`
	BandwidthBytesPerSecond float64  `json:"bandwidthBytesPerSecond"`
	LossRatio               *float64 `json:"lossRatio,omitempty"`
	CongestionControl       string   `json:"congestionControl,omitempty"`
	// How many streams the path was expected to need, and why.
	ExpectedStreams float64 `json:"expectedStreams,omitempty"`
	ExpectedBecause string  `json:"expectedBecause,omitempty"`
}

// Goals say whether targetSpeedup and targetTransferRate were reached.
type Goals struct {
	Speedup      Verdict `json:"speedup"`
	TransferRate Verdict `json:"transferRate"`
}

// Verdict is one goal's.
type Verdict struct {
	Met    bool   `json:"met"`
	Reason string `json:"reason"`
}

// Plan says what was expected before anything was sent.
type Plan struct {
	Images                  []ImagePlan `json:"images"`
	ExpectedLinkBytes       int64       `json:"expectedLinkBytes"`
	ExpectedSeconds         float64     `json:"expectedSeconds"`
	ExpectedDowntimeSeconds float64     `json:"expectedDowntimeSeconds"`
	StandardSeconds         float64     `json:"standardSeconds"`
	ExpectedSpeedup         float64     `json:"expectedSpeedup"`
	// Set where a guest that runs was looked at, which a plan does.
	Forecast *GuestForecast `json:"forecast,omitempty"`
}

// GuestForecast says what the move of a running guest will take, each figure between its Low and High.
type GuestForecast struct {
	Seconds        float64 `json:"seconds"`
	SecondsLow     float64 `json:"secondsLow"`
	SecondsHigh    float64 `json:"secondsHigh"`
	DowntimeMs     float64 `json:"downtimeMs"`
	DowntimeMsLow  float64 `json:"downtimeMsLow"`
	DowntimeMsHigh float64 `json:"downtimeMsHigh"`
	LinkBytes      int64   `json:"linkBytes"`
	Rounds         int     `json:"rounds"`
	// False where it writes too fast for the pause allowed: its move would park.
	Converges           bool    `json:"converges"`
	DirtyBytesPerSecond int64   `json:"dirtyBytesPerSecond"`
	RateBytesPerSecond  int64   `json:"rateBytesPerSecond"`
	Processors          float64 `json:"processors"`
	// What it rests on, for people.
	Basis []string `json:"basis"`
}

// ImagePlan is one image's part of a Plan. Kind is full, delta or resume.
type ImagePlan struct {
	ImageID           string  `json:"imageId"`
	SizeBytes         int64   `json:"sizeBytes"`
	Kind              string  `json:"kind"`
	ZeroShare         float64 `json:"zeroShare"`
	HeldShare         float64 `json:"heldShare"`
	ExpectedLinkBytes int64   `json:"expectedLinkBytes"`
}

// ImageResult is one image's part of a Result.
type ImageResult struct {
	ImageID      string  `json:"imageId"`
	Kind         string  `json:"kind"`
	TotalBytes   int64   `json:"totalBytes"`
	LinkBytes    int64   `json:"linkBytes"`
	Ratio        float64 `json:"ratio"`
	Seconds      float64 `json:"seconds"`
	Began        string  `json:"began"`
	Verified     bool    `json:"verified"`
	Root         string  `json:"root"`
	Streams      int     `json:"streams"`
	Level        int     `json:"level"`
	BatchBytes   int64   `json:"batchBytes"`
	DeltaHitRate float64 `json:"deltaHitRate"`
	Blocks       Blocks  `json:"blocks"`
	Encoder      Encoder `json:"encoder"`
	Attempts     int     `json:"attempts"`
}

// Encoder says where the bytes on the link and the encoder's time went.
type Encoder struct {
	Bytes    EncoderBytes    `json:"bytes"`
	Packings EncoderPackings `json:"packings"`
	Times    EncoderTimes    `json:"times"`
}

// EncoderBytes are on the link, by encoding, without framing.
type EncoderBytes struct {
	Full       int64 `json:"full"`
	Pages      int64 `json:"pages"`
	RunDelta   int64 `json:"runDelta"`
	OldPages   int64 `json:"oldPages"`
	References int64 `json:"references"`
	Heads      int64 `json:"heads"`
}

// EncoderPackings are bytes of what remains after deltas and references, by how it was packed.
type EncoderPackings struct {
	Stored     int64 `json:"stored"`
	Zstd       int64 `json:"zstd"`
	Dictionary int64 `json:"dictionary"`
	Numbers    int64 `json:"numbers"`
	Hex        int64 `json:"hex"`
	Brotli     int64 `json:"brotli"`
}

// EncoderTimes are milliseconds of all threads, by stage.
type EncoderTimes struct {
	ReadMs   int64 `json:"readMs"`
	ChooseMs int64 `json:"chooseMs"`
	DeltaMs  int64 `json:"deltaMs"`
	PackMs   int64 `json:"packMs"`
}

// Blocks counts how the blocks of an image went.
type Blocks struct {
	Zero      int64 `json:"zero"`
	Unchanged int64 `json:"unchanged"`
	Full      int64 `json:"full"`
	Pages     int64 `json:"pages"`
	RunDelta  int64 `json:"runDelta"`
	// OldPages: blocks whose changed pages were packed with what they replace.
	OldPages int64 `json:"oldPages"`
	// References: blocks with pages that the destination had elsewhere.
	References int64 `json:"references"`
	Resent     int64 `json:"resent"`
	Refused    int64 `json:"refused"`
}

// Progress answers QueryProgress.
type Progress struct {
	MigrationID     string          `json:"migrationId"`
	VMID            string          `json:"vmId"`
	SourceHost      string          `json:"sourceHost"`
	DestinationHost string          `json:"destinationHost"`
	Phase           string          `json:"phase"`
	Path            string          `json:"path"`
	PastReturn      bool            `json:"pastReturn"`
	CancelRequested bool            `json:"cancelRequested"`
	Images          []ImageProgress `json:"images"`
	Plan            *Plan           `json:"plan,omitempty"`
	Tier            string          `json:"tier,omitempty"`
	Parked          *Parked         `json:"parked,omitempty"`
}

// ImageProgress is how far one image is.
type ImageProgress struct {
	V              int      `json:"v"`
	ImageID        string   `json:"imageId"`
	TotalBytes     int64    `json:"totalBytes"`
	DoneBytes      int64    `json:"doneBytes"`
	LinkBytes      int64    `json:"linkBytes"`
	BytesPerSecond float64  `json:"bytesPerSecond"`
	Streams        int      `json:"streams"`
	Level          int      `json:"level"`
	LevelReason    string   `json:"levelReason,omitempty"`
	BatchBytes     int64    `json:"batchBytes"`
	RTTMs          float64  `json:"rttMs"`
	EtaMs          *float64 `json:"etaMs,omitempty"`
	ElapsedMs      *float64 `json:"elapsedMs,omitempty"`
	Began          string   `json:"began,omitempty"`
	VerifiedBlocks int64    `json:"verifiedBlocks"`
	// Guest comes with a running guest's memory: where it is on its way.
	Guest *GuestProgress `json:"guest,omitempty"`
}

// GuestProgress is what is seen of a guest while it moves; State is one of docs/switchover.md.
type GuestProgress struct {
	State               string  `json:"state"`
	Round               int     `json:"round"`
	RemainingBytes      float64 `json:"remainingBytes"`
	DirtyBytesPerSecond float64 `json:"dirtyBytesPerSecond"`
	RateBytesPerSecond  float64 `json:"rateBytesPerSecond"`
	ExpectedDowntimeMs  float64 `json:"expectedDowntimeMs"`
	Throttle            float64 `json:"throttle"`
	// WriteLimitBytesPerSecond is what its disk writes are held to; nil where nothing holds them.
	WriteLimitBytesPerSecond *float64 `json:"writeLimitBytesPerSecond,omitempty"`
	// Pauses counts all of the migration so far; PausedMs is their length in all.
	Pauses   *int     `json:"pauses,omitempty"`
	PausedMs *float64 `json:"pausedMs,omitempty"`
}

// GuestResult is what was measured of a guest that moved while it ran.
type GuestResult struct {
	// DowntimeMs is of the last pause; Pauses and PausedMs count those that were broken off too.
	DowntimeMs *float64 `json:"downtimeMs,omitempty"`
	Pauses     *int     `json:"pauses,omitempty"`
	PausedMs   *float64 `json:"pausedMs,omitempty"`
	Rounds     int      `json:"rounds"`
	Reason     string   `json:"reason"`
	Responds   bool     `json:"responds"`
	Throttle   float64  `json:"throttle"`
	// WriteLimitBytesPerSecond is what its disk writes were held to until its last pause.
	WriteLimitBytesPerSecond *float64 `json:"writeLimitBytesPerSecond,omitempty"`
	// LeftOutBytes is memory that the guest said to be free and its QEMU left out (free-page hints of a balloon device).
	LeftOutBytes *int64 `json:"leftOutBytes,omitempty"`
}

// GuestConsole says where one of a guest's consoles is on the host that it has come to.
type GuestConsole struct {
	// Option is that of the guest's command: vnc, spice, serial, parallel, debugcon or chardev.
	Option string `json:"option"`
	ID     string `json:"id,omitempty"`
	// Was is what the source had; At is an address with its port, or the path of a socket or file.
	Was string `json:"was"`
	At  string `json:"at"`
}

// Parked says what a migration that waits for an operator waits for.
type Parked struct {
	Error   ErrorReport `json:"error"`
	Step    string      `json:"step"`
	SinceMs float64     `json:"sinceMs"`
}
