import ServiceRuntime
import ServiceStart
import ServingTypes
import WorkerService

@main
struct Main {
    static func main() async {
        await run(
            .prefillWorker,
            settings: { reader throws(SettingsError) in
                try WorkerSettings(&reader, role: .prefillWorker)
            }, services: WorkerMain.services)
    }
}
