import CLlama
import Foundation
import InferenceEngine
import ServingTypes

/// A model file's header, read before libllama loads the weights: better reasons, fingerprint.
@safe struct GGUFFile {
    let path: String
    let fileBytes: Int
    /// Bytes of metadata and tensor table; the tensors follow.
    let headerBytes: Int
    /// Two sets of factors for positions: one for short contexts, one for long ones.
    let hasRopeFactorsPerContext: Bool

    init(path: String) throws(EngineError) {
        self.path = path
        func refusal(_ reason: String) -> EngineError {
            .modelNotLoaded(path: path, reason: reason)
        }
        let attributes = try? FileManager.default.attributesOfItem(
            atPath: URL(fileURLWithPath: path).resolvingSymlinksInPath().path)
        guard let attributes, let size = attributes[.size] as? NSNumber else {
            throw refusal("there is no such file")
        }
        guard attributes[.type] as? FileAttributeType == .typeRegular else {
            throw refusal("it is not a regular file")
        }
        fileBytes = size.intValue
        guard let magic = Self.read(path, at: 0, count: 4) else {
            throw refusal("it can't be opened for reading")
        }
        guard magic == Array("GGUF".utf8) else { throw refusal("it is not a GGUF file") }

        var dataEnd = 0
        var hasRopeFactorsPerContext = false
        let (header, errors) = LlamaLog.collectingErrors { () -> Int? in
            let parameters = unsafe gguf_init_params(no_alloc: true, ctx: nil)
            guard let gguf = unsafe gguf_init_from_file(path, parameters) else { return nil }
            defer { unsafe gguf_free(gguf) }
            let start = unsafe gguf_get_data_offset(gguf)
            hasRopeFactorsPerContext =
                unsafe gguf_find_tensor(gguf, "rope_factors_long.weight") >= 0
            for tensor in 0..<(unsafe gguf_get_n_tensors(gguf)) {
                let (end, overflows) = unsafe gguf_get_tensor_offset(gguf, tensor)
                    .addingReportingOverflow(gguf_get_tensor_size(gguf, tensor))
                dataEnd = max(dataEnd, overflows ? .max : Int(clamping: end))
            }
            return start
        }
        guard let header else {
            throw refusal("its header is damaged: \(errors.joined(separator: "; "))")
        }
        let needed = header.addingReportingOverflow(dataEnd)
        guard !needed.overflow, needed.partialValue <= fileBytes else {
            throw refusal(
                "it is truncated: \(fileBytes) of \(needed.partialValue) bytes are there")
        }
        headerBytes = header
        self.hasRopeFactorsPerContext = hasRopeFactorsPerContext
    }

    /// SHA-256 over header, file size, samples of the weights and `layout`.
    ///
    /// The samples (64 times 1 KiB) tell apart files that differ in their weights only.
    func fingerprint(layout: String) -> ModelFingerprint? {
        var hash = SHA256()
        hash.update(Array(layout.utf8))
        hash.update(Array("\(fileBytes)".utf8))
        guard let header = Self.read(path, at: 0, count: headerBytes) else { return nil }
        hash.update(header)
        let weightBytes = fileBytes - headerBytes
        for sample in 0..<Limits.fingerprintSamples {
            let offset = headerBytes + weightBytes / Limits.fingerprintSamples * sample
            let count = min(Limits.fingerprintSampleBytes, fileBytes - offset)
            guard let bytes = Self.read(path, at: offset, count: count) else { return nil }
            hash.update(bytes)
        }
        return ModelFingerprint(hash.finalize())
    }

    private static func read(_ path: String, at offset: Int, count: Int) -> [UInt8]? {
        guard let file = FileHandle(forReadingAtPath: path) else { return nil }
        defer { try? file.close() }
        guard (try? file.seek(toOffset: UInt64(offset))) != nil,
            let data = try? file.read(upToCount: count), data.count == count
        else { return count == 0 ? [] : nil }
        return [UInt8](data)
    }
}
