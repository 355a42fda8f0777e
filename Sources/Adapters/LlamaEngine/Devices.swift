import CLlama
package import ServingTypes

/// The processors and accelerators that libllama's backends see on this host.
package func readDevices() -> [DeviceReading] {
    LlamaLog.prepareLibrary()
    return (0..<ggml_backend_dev_count()).compactMap { index in
        guard let device = unsafe ggml_backend_dev_get(index) else { return nil }
        return unsafe reading(of: device)
    }
}

private func reading(of device: ggml_backend_dev_t) -> DeviceReading? {
    var properties = unsafe ggml_backend_dev_props()
    unsafe ggml_backend_dev_get_props(device, &properties)
    guard let kind = unsafe kind(of: device, type: properties.type) else { return nil }
    let texts = unsafe [properties.description, properties.name].map { text in
        unsafe text.map { unsafe String(cString: $0) } ?? ""
    }
    return DeviceReading(
        name: texts.first { !$0.isEmpty } ?? kind, kind: kind,
        totalMemoryBytes: UInt64(unsafe properties.memory_total),
        freeMemoryBytes: UInt64(unsafe properties.memory_free))
}

/// `CPU`, `GPU` or `NPU`; nil for helpers of the CPU such as BLAS.
private func kind(of device: ggml_backend_dev_t, type: ggml_backend_dev_type) -> String? {
    // Ascend NPUs call themselves GPU; only their registry's name tells.
    if let registry = unsafe ggml_backend_dev_backend_reg(device),
        let name = unsafe ggml_backend_reg_name(registry),
        unsafe String(cString: name) == "CANN"
    {
        return "NPU"
    }
    return switch type {
    case GGML_BACKEND_DEVICE_TYPE_CPU: "CPU"
    case GGML_BACKEND_DEVICE_TYPE_GPU, GGML_BACKEND_DEVICE_TYPE_IGPU: "GPU"
    default: nil
    }
}

/// Engine and devices in one line, for people.
func describeDevices(usesAccelerators: Bool) -> String {
    let devices = readDevices()
    let accelerators = usesAccelerators ? devices.filter { $0.kind != "CPU" } : []
    let used = accelerators.isEmpty ? devices.filter { $0.kind == "CPU" } : accelerators
    let version = unsafe llama_version().map { unsafe String(cString: $0) } ?? "unknown version"
    return "llama.cpp \(version) on \(used.map(\.name).joined(separator: ", "))"
}
