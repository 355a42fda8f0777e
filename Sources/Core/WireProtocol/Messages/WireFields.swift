import CProtobufC
import ServingTypes

/// A Swift value with a protobuf-c form.
protocol WireForm {
    associatedtype Wire

    /// Copies the value out and checks every field.
    init(wire: Wire) throws(WireError)

    /// Checks every field and makes the C form; texts and arrays lie in the arena.
    func wire(in arena: MessageArena) throws(WireError) -> Wire
}

// ---- Checks for both directions ----

/// The number if it is in the field's range.
func checked<Number: Comparable>(
    _ number: Number, _ range: ClosedRange<Number>, _ field: String
) throws(WireError) -> Number {
    guard range.contains(number) else { throw .outOfRange(field: field) }
    return number
}

/// The number of repetitions if it is within the limit.
func checkedCount(_ count: Int, limit: Int, _ field: String) throws(WireError) {
    guard count <= limit else { throw .tooMany(field: field, count: count, limit: limit) }
}

// ---- Reading ----

func read(_ number: UInt32, _ range: ClosedRange<Int>, _ field: String) throws(WireError) -> Int {
    try checked(Int(number), range, field)
}

func read(_ number: UInt64, _ range: ClosedRange<Int>, _ field: String) throws(WireError) -> Int {
    guard let number = Int(exactly: number) else { throw .outOfRange(field: field) }
    return try checked(number, range, field)
}

func readMilliseconds(_ number: UInt64, _ field: String) throws(WireError) -> Duration {
    .milliseconds(try read(number, 0...WireLimits.durationMilliseconds, field))
}

/// 0 is none.
func readMicroseconds(_ number: UInt64, _ field: String) throws(WireError) -> Duration? {
    if number == 0 { return nil }
    return .microseconds(try read(number, 1...1000 * WireLimits.durationMilliseconds, field))
}

/// A value of an enumeration; 0 is none.
func readOptionalValue<Value: RawRepresentable<UInt8>>(
    _ number: UInt32, _ field: String
) throws(WireError) -> Value? {
    if number == 0 { return nil }
    guard let small = UInt8(exactly: number), let value = Value(rawValue: small) else {
        throw .unknownValue(field: field, value: number)
    }
    return value
}

func readValue<Value: RawRepresentable<UInt8>>(
    _ number: UInt32, _ field: String
) throws(WireError) -> Value {
    guard let value: Value = try readOptionalValue(number, field) else {
        throw .unknownValue(field: field, value: 0)
    }
    return value
}

func readText(
    _ data: ProtobufCBinaryData, limit: Int, _ field: String
) throws(WireError) -> String {
    guard unsafe data.len > 0, let start = unsafe data.data else { return "" }
    guard unsafe data.len <= limit else {
        throw unsafe .wrongLength(field: field, bytes: data.len, limitBytes: limit)
    }
    let bytes = unsafe UnsafeBufferPointer(start: start, count: data.len)
    guard unsafe !hasZero(bytes), let text = unsafe String(validating: bytes, as: UTF8.self) else {
        throw .invalidText(field: field)
    }
    return text
}

func readName(
    _ data: ProtobufCBinaryData, limit: Int, _ field: String
) throws(WireError) -> String {
    let name = try unsafe readText(data, limit: limit, field)
    guard !name.isEmpty else { throw .missing(field: field) }
    return name
}

func readInstance(_ data: ProtobufCBinaryData, _ field: String) throws(WireError) -> InstanceID {
    InstanceID(try unsafe readName(data, limit: WireLimits.identifierBytes, field))
}

/// The name of a group; empty is none.
func readGroup(_ data: ProtobufCBinaryData, _ field: String) throws(WireError) -> GroupID? {
    let name = try unsafe readText(data, limit: WireLimits.identifierBytes, field)
    return name.isEmpty ? nil : GroupID(name)
}

func readInstances(
    _ texts: UnsafeMutablePointer<ProtobufCBinaryData>?, count: Int, limit: Int, _ field: String
) throws(WireError) -> [InstanceID] {
    try checkedCount(count, limit: limit, field)
    guard count > 0, let texts = unsafe texts else { return [] }
    var instances: [InstanceID] = []
    instances.reserveCapacity(count)
    for index in 0..<count {
        instances.append(try unsafe readInstance(texts[index], field))
    }
    return instances
}

func readTexts(
    _ texts: UnsafeMutablePointer<ProtobufCBinaryData>?, count: Int, limit: Int,
    textBytes: Int, _ field: String
) throws(WireError) -> [String] {
    try checkedCount(count, limit: limit, field)
    guard count > 0, let texts = unsafe texts else { return [] }
    var result: [String] = []
    for index in 0..<count {
        result.append(try unsafe readText(texts[index], limit: textBytes, field))
    }
    return result
}

/// Exactly `count` bytes.
func readBytes(
    _ data: ProtobufCBinaryData, count: Int, _ field: String
) throws(WireError) -> [UInt8] {
    guard unsafe data.len == count, let start = unsafe data.data else {
        throw unsafe .wrongLength(field: field, bytes: data.len, limitBytes: count)
    }
    return unsafe [UInt8](UnsafeBufferPointer(start: start, count: count))
}

func readFingerprint(
    _ data: ProtobufCBinaryData, _ field: String
) throws(WireError) -> ModelFingerprint {
    ModelFingerprint(
        try unsafe readBytes(data, count: ModelFingerprint.byteCount, field))
}

func readSecret(
    _ data: ProtobufCBinaryData, _ field: String
) throws(WireError) -> ReservationSecret {
    let count = ReservationSecret.byteCount
    guard unsafe data.len == count, let start = unsafe data.data else {
        throw unsafe .wrongLength(field: field, bytes: data.len, limitBytes: count)
    }
    let bytes = unsafe UnsafeRawBufferPointer(start: start, count: count)
    return unsafe ReservationSecret(
        high: UInt64(bigEndian: bytes.loadUnaligned(as: UInt64.self)),
        low: UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: 8, as: UInt64.self)))
}

/// A submessage that must be there.
func readForm<Form: WireForm>(
    _ pointer: UnsafeMutablePointer<Form.Wire>?, _ field: String
) throws(WireError) -> Form {
    guard let pointer = unsafe pointer else { throw .missing(field: field) }
    return try unsafe Form(wire: pointer.pointee)
}

func readForms<Form: WireForm>(
    _ pointers: UnsafeMutablePointer<UnsafeMutablePointer<Form.Wire>?>?, count: Int, limit: Int,
    _ field: String
) throws(WireError) -> [Form] {
    try checkedCount(count, limit: limit, field)
    guard count > 0, let pointers = unsafe pointers else { return [] }
    var forms: [Form] = []
    forms.reserveCapacity(count)
    for index in 0..<count {
        forms.append(try unsafe readForm(pointers[index], field))
    }
    return forms
}

// ---- Writing ----

func write32(_ number: Int, _ range: ClosedRange<Int>, _ field: String) throws(WireError) -> UInt32
{
    UInt32(try checked(number, range, field))
}

func write64(_ number: Int, _ range: ClosedRange<Int>, _ field: String) throws(WireError) -> UInt64
{
    UInt64(try checked(number, range, field))
}

func writeMilliseconds(_ duration: Duration, _ field: String) throws(WireError) -> UInt64 {
    let limit = Duration.milliseconds(WireLimits.durationMilliseconds)
    return UInt64(try checked(duration, .zero...limit, field).milliseconds)
}

/// At least a microsecond; nil is written as 0.
func writeMicroseconds(_ duration: Duration?, _ field: String) throws(WireError) -> UInt64 {
    guard let duration else { return 0 }
    let limit = Duration.milliseconds(WireLimits.durationMilliseconds)
    return UInt64(try checked(duration, .microseconds(1)...limit, field).nanoseconds / 1000)
}

extension MessageArena {
    func copy(_ bytes: UnsafeBufferPointer<UInt8>) -> ProtobufCBinaryData? {
        guard let start = bytes.baseAddress, bytes.count > 0 else {
            return unsafe ProtobufCBinaryData()
        }
        guard let memory = unsafe allocate(bytes.count) else { return nil }
        unsafe memory.copyMemory(from: start, byteCount: bytes.count)
        return unsafe ProtobufCBinaryData(
            len: bytes.count, data: memory.assumingMemoryBound(to: UInt8.self))
    }

    func writeText(
        _ text: String, limit: Int, _ field: String
    ) throws(WireError) -> ProtobufCBinaryData {
        var text = text
        let count = text.utf8.count
        guard count <= limit else {
            throw .wrongLength(field: field, bytes: count, limitBytes: limit)
        }
        let (copied, isValid) = text.withUTF8 { unsafe (copy($0), !hasZero($0)) }
        guard isValid else { throw .invalidText(field: field) }
        return try unsafe taken(copied)
    }

    func writeName(
        _ name: String, limit: Int, _ field: String
    ) throws(WireError) -> ProtobufCBinaryData {
        guard !name.isEmpty else { throw .missing(field: field) }
        return try unsafe writeText(name, limit: limit, field)
    }

    func writeInstance(
        _ instance: InstanceID, _ field: String
    ) throws(WireError) -> ProtobufCBinaryData {
        try unsafe writeName(instance.name, limit: WireLimits.identifierBytes, field)
    }

    /// The name of a group; nil is written as nothing.
    func writeGroup(_ group: GroupID?, _ field: String) throws(WireError) -> ProtobufCBinaryData {
        guard let group else { return unsafe ProtobufCBinaryData() }
        return try unsafe writeName(group.name, limit: WireLimits.identifierBytes, field)
    }

    /// A sentence for people; what is too long is cut, and NUL becomes a space.
    func writeReason(
        _ reason: String, limit: Int = WireLimits.reasonBytes
    ) throws(WireError) -> ProtobufCBinaryData {
        var reason = reason
        while reason.utf8.count > limit {
            reason = String(decoding: reason.utf8.prefix(limit - 3), as: UTF8.self)
        }
        if reason.utf8.contains(0) {
            reason = String(decoding: reason.utf8.map { $0 == 0 ? 32 : $0 }, as: UTF8.self)
        }
        return try unsafe writeText(reason, limit: limit, "reason")
    }

    func writeFingerprint(
        _ fingerprint: ModelFingerprint
    ) throws(WireError) -> ProtobufCBinaryData {
        try unsafe fingerprint.bytes.withUnsafeBufferPointer { (bytes) throws(WireError) in
            try unsafe taken(copy(bytes))
        }
    }

    func writeSecret(_ secret: ReservationSecret) throws(WireError) -> ProtobufCBinaryData {
        let count = ReservationSecret.byteCount
        let memory = try unsafe taken(allocate(count))
        unsafe memory.storeBytes(of: secret.high.bigEndian, as: UInt64.self)
        unsafe memory.storeBytes(of: secret.low.bigEndian, toByteOffset: 8, as: UInt64.self)
        return unsafe ProtobufCBinaryData(
            len: count, data: memory.assumingMemoryBound(to: UInt8.self))
    }

    /// Exactly `count` bytes.
    func writeBytes(
        _ bytes: [UInt8], count: Int, _ field: String
    ) throws(WireError) -> ProtobufCBinaryData {
        guard bytes.count == count else {
            throw .wrongLength(field: field, bytes: bytes.count, limitBytes: count)
        }
        return try unsafe bytes.withUnsafeBufferPointer { (bytes) throws(WireError) in
            try unsafe taken(copy(bytes))
        }
    }

    func writeForm<Form: WireForm>(
        _ form: Form
    ) throws(WireError) -> UnsafeMutablePointer<Form.Wire> {
        let wire = try form.wire(in: self)
        let pointer = try unsafe taken(allocate(MemoryLayout<Form.Wire>.stride))
            .bindMemory(to: Form.Wire.self, capacity: 1)
        unsafe pointer.initialize(to: wire)
        return unsafe pointer
    }

    func writeForms<Form: WireForm>(
        _ forms: [Form], limit: Int, _ field: String
    ) throws(WireError) -> UnsafeMutablePointer<UnsafeMutablePointer<Form.Wire>?>? {
        try checkedCount(forms.count, limit: limit, field)
        if forms.isEmpty { return nil }
        typealias Pointer = UnsafeMutablePointer<Form.Wire>?
        let pointers = try unsafe taken(allocate(forms.count * MemoryLayout<Pointer>.stride))
            .bindMemory(to: Pointer.self, capacity: forms.count)
        for (index, form) in forms.enumerated() {
            unsafe (pointers + index).initialize(to: try writeForm(form))
        }
        return unsafe pointers
    }

    func writeInstances(
        _ instances: [InstanceID], limit: Int, _ field: String
    ) throws(WireError) -> UnsafeMutablePointer<ProtobufCBinaryData>? {
        try checkedCount(instances.count, limit: limit, field)
        if instances.isEmpty { return nil }
        let stride = unsafe MemoryLayout<ProtobufCBinaryData>.stride
        let texts = try unsafe taken(allocate(instances.count * stride))
            .bindMemory(to: ProtobufCBinaryData.self, capacity: instances.count)
        for (index, instance) in instances.enumerated() {
            unsafe (texts + index).initialize(to: try writeInstance(instance, field))
        }
        return unsafe texts
    }

    func writeReasons(
        _ reasons: [String], limit: Int, _ field: String
    ) throws(WireError) -> UnsafeMutablePointer<ProtobufCBinaryData>? {
        try checkedCount(reasons.count, limit: limit, field)
        if reasons.isEmpty { return nil }
        let stride = unsafe MemoryLayout<ProtobufCBinaryData>.stride
        let texts = try unsafe taken(allocate(reasons.count * stride))
            .bindMemory(to: ProtobufCBinaryData.self, capacity: reasons.count)
        for (index, reason) in reasons.enumerated() {
            unsafe (texts + index).initialize(to: try writeReason(reason))
        }
        return unsafe texts
    }

    func writeTexts(
        _ values: [String], limit: Int, textBytes: Int, _ field: String
    ) throws(WireError) -> UnsafeMutablePointer<ProtobufCBinaryData>? {
        try checkedCount(values.count, limit: limit, field)
        if values.isEmpty { return nil }
        let stride = unsafe MemoryLayout<ProtobufCBinaryData>.stride
        let texts = try unsafe taken(allocate(values.count * stride))
            .bindMemory(to: ProtobufCBinaryData.self, capacity: values.count)
        for (index, value) in values.enumerated() {
            unsafe (texts + index).initialize(
                to: try writeText(value, limit: textBytes, field))
        }
        return unsafe texts
    }

    private func taken<Memory>(_ memory: Memory?) throws(WireError) -> Memory {
        guard let memory else { throw .needsTooMuchMemory(limitBytes: limitBytes) }
        return memory
    }
}

/// Whether a text has a NUL inside.
private func hasZero(_ bytes: UnsafeBufferPointer<UInt8>) -> Bool {
    var index = 0
    let raw = UnsafeRawBufferPointer(bytes)
    // Eight at a time: the lowest zero byte borrows into its own top bit.
    while index + 8 <= bytes.count {
        let word = unsafe raw.loadUnaligned(fromByteOffset: index, as: UInt64.self)
        if (word &- 0x0101_0101_0101_0101) & ~word & 0x8080_8080_8080_8080 != 0 { return true }
        index += 8
    }
    while index < bytes.count {
        if unsafe bytes[index] == 0 { return true }
        index += 1
    }
    return false
}
