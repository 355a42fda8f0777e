import HealthService
import ServiceStart
import ServingTypes

@main
struct Main {
    static func main() async {
        await run(.healthAgent, settings: HealthSettings.init, services: HealthMain.services)
    }
}
