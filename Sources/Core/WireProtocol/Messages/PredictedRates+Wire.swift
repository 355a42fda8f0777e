import CProtobufC
import CWireMessages
import ServingTypes

private let rates = 0...Double.greatestFiniteMagnitude

extension PredictedRates: @unsafe WireForm {
    init(wire: Pdserve__Wire__PredictedRates) throws(WireError) {
        self.init(
            isMeasured: unsafe wire.is_measured != 0,
            prefillTokensPerSecond: try checked(
                unsafe wire.prefill_tokens_per_second, rates,
                "PredictedRates.prefill_tokens_per_second"),
            stepMilliseconds: try checked(
                unsafe wire.step_milliseconds, rates, "PredictedRates.step_milliseconds"),
            stepMillisecondsPerSequence: try checked(
                unsafe wire.step_milliseconds_per_sequence, rates,
                "PredictedRates.step_milliseconds_per_sequence"),
            stepMillisecondsPerThousandTokens: try checked(
                unsafe wire.step_milliseconds_per_thousand_tokens, rates,
                "PredictedRates.step_milliseconds_per_thousand_tokens"),
            kvExportBytesPerSecond: try checked(
                unsafe wire.kv_export_bytes_per_second, rates,
                "PredictedRates.kv_export_bytes_per_second"),
            kvImportBytesPerSecond: try checked(
                unsafe wire.kv_import_bytes_per_second, rates,
                "PredictedRates.kv_import_bytes_per_second"))
    }

    func wire(in arena: MessageArena) throws(WireError) -> Pdserve__Wire__PredictedRates {
        var wire = unsafe Pdserve__Wire__PredictedRates()
        unsafe pdserve__wire__predicted_rates__init(&wire)
        unsafe wire.is_measured = isMeasured ? 1 : 0
        unsafe wire.prefill_tokens_per_second = try checked(
            prefillTokensPerSecond, rates, "PredictedRates.prefill_tokens_per_second")
        unsafe wire.step_milliseconds = try checked(
            stepMilliseconds, rates, "PredictedRates.step_milliseconds")
        unsafe wire.step_milliseconds_per_sequence = try checked(
            stepMillisecondsPerSequence, rates, "PredictedRates.step_milliseconds_per_sequence")
        unsafe wire.step_milliseconds_per_thousand_tokens = try checked(
            stepMillisecondsPerThousandTokens, rates,
            "PredictedRates.step_milliseconds_per_thousand_tokens")
        unsafe wire.kv_export_bytes_per_second = try checked(
            kvExportBytesPerSecond, rates, "PredictedRates.kv_export_bytes_per_second")
        unsafe wire.kv_import_bytes_per_second = try checked(
            kvImportBytesPerSecond, rates, "PredictedRates.kv_import_bytes_per_second")
        return unsafe wire
    }
}
